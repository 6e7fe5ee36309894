//! A library of an older FoundationDB. Alone in its process, because it sets an environment variable.

#[path = "support/fake_home.rs"]
mod fake_home;

use mvstore_fdb_client::{Client, LibrarySearch, StartError};

#[test]
fn a_library_with_an_older_api_is_refused_and_a_newer_one_put_in_its_place_is_taken() {
    let home = fake_home::fake_home();
    let search = LibrarySearch::only_in(home.path());

    // SAFETY: the only test of its process; nothing else reads the environment now.
    unsafe { std::env::set_var("FDB_FAKE_MAX_API_VERSION", "710") };
    let error = Client::start(&search).expect_err("version 710 was taken");
    assert_eq!(
        error,
        StartError::ApiTooOld {
            library: home.path().join("libfdb_c.so"),
            supported: 710
        }
    );
    assert!(error.to_string().contains("needs 730"), "{error}");

    // SAFETY: as above.
    unsafe { std::env::remove_var("FDB_FAKE_MAX_API_VERSION") };
    Client::start(&search).expect("an upgraded library works without a restart");
}
