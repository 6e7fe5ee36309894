//! A request as the network brings it, given to a store, and its answer as bytes: what the HTTP server
//! does, without HTTP.

use mvsqlite::client::Reply;
use mvsqlite_protocol::{Code, NamespaceKey, PageImage, Problem, problem, v2};
use mvstore::error::StoreError;
use mvstore::store::Store;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A request on its way.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    /// In whose name it comes, if it names the owner of a namespace's lock.
    pub(crate) lock_owner: Option<String>,
}

type Answer = Result<Vec<u8>, Problem>;

/// Has a store do what a message asks for.
pub(crate) async fn serve(store: &Store, message: Message) -> Reply {
    match answer(store, message).await {
        Ok(body) => Reply {
            status: 200,
            content_type: Some(v2::CONTENT_TYPE.to_owned()),
            body,
        },
        Err(problem) => refusal(&problem),
    }
}

/// A problem as it travels.
pub(crate) fn refusal(problem: &Problem) -> Reply {
    Reply {
        status: problem.status,
        content_type: Some(problem::CONTENT_TYPE.to_owned()),
        body: serde_json::to_vec(problem).unwrap_or_default(),
    }
}

/// Whether a call only reads: a store gives those up with their client, and writes not.
pub(crate) fn only_reads(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("begin" | "resolve" | "read"))
}

/// Whether this is the first sending of a commit, of which its client promises that it is the only one
/// so far: a refusal is final because of that. HTTP over TCP brings no request twice by itself.
pub(crate) fn is_first_sending(message: &Message) -> bool {
    #[derive(Deserialize)]
    struct Retry {
        #[serde(default)]
        retry: bool,
    }
    let commits = message.path.ends_with("/commit");
    commits && v2::decode::<Retry>(&message.body).is_ok_and(|commit| !commit.retry)
}

async fn answer(store: &Store, message: Message) -> Answer {
    let body = message.body.as_slice();
    let owner = message.lock_owner;
    match message.path.as_str() {
        "/v2/commit" => {
            return encode(
                &store
                    .commit_group_as(owner, decode(body)?)
                    .await
                    .map_err(told)?,
            );
        }
        "/v2/settle" => {
            return encode(&store.settle_group(decode(body)?).await.map_err(told)?);
        }
        _ => {}
    }
    let (key, call) = target(&message.path)?;
    match call {
        "begin" => {
            let begun = store.begin_as(owner.as_deref(), &key, decode(body)?).await;
            encode(&begun.map_err(told)?)
        }
        "resolve" => encode(&store.resolve(&key, decode(body)?).await.map_err(told)?),
        "read" => images(store.read(&key, decode(body)?).await.map_err(told)?),
        "stage" => encode(&store.stage(&key, decode(body)?).await.map_err(told)?),
        "commit" => {
            let done = store.commit_as(owner, &key, decode(body)?).await;
            encode(&done.map_err(told)?)
        }
        "settle" => encode(&store.settle(&key, decode(body)?).await.map_err(told)?),
        "lease" => encode(&store.lease(&key, decode(body)?).await.map_err(told)?),
        _ => Err(Problem::new(
            Code::NotFound,
            format!("there is no '{}' here", message.path),
        )),
    }
}

/// Namespace and call of a path `/v2/ns/KEY/CALL`.
fn target(path: &str) -> Result<(NamespaceKey, &str), Problem> {
    let malformed = || Problem::new(Code::NotFound, format!("there is no '{path}' here"));
    let rest = path.strip_prefix("/v2/ns/").ok_or_else(malformed)?;
    let (key, call) = rest.split_once('/').ok_or_else(malformed)?;
    let key = unescape(key).ok_or_else(malformed)?;
    let key = NamespaceKey::try_from(key).map_err(|_| malformed())?;
    Ok((key, call))
}

/// Undoes percent-encoding.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let code = digit()? * 16 + digit()?;
        plain.push(u8::try_from(code).ok()?);
    }
    String::from_utf8(plain).ok()
}

fn told(error: StoreError) -> Problem {
    error.into()
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    v2::decode(body).map_err(|error| Problem::new(Code::Malformed, error.to_string()))
}

fn encode<T: Serialize>(message: &T) -> Answer {
    v2::encode(message).map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

fn images(images: Vec<PageImage>) -> Answer {
    let mut body = Vec::new();
    for image in images {
        body.extend(encode(&image)?);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_namespace_and_a_call_as_the_client_encodes_it() {
        let key: NamespaceKey = "a/b-c".parse().unwrap();
        let path = v2::path(&key, "begin");
        let (found, call) = target(&path).unwrap();
        assert_eq!((found, call), (key, "begin"));
        assert!(only_reads(&path));
        assert!(target("/v2/ns/a").is_err());
        assert!(target("/v2/ns/%f/begin").is_err());
    }
}
