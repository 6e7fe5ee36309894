"""The admin API of the store, at MVSQLITE_E2E_ADMIN."""

import http.client
import json
import os

ADDRESS = os.environ.get("MVSQLITE_E2E_ADMIN")


class Refused(Exception):
    """The store did not do it, or did not say so."""


def call(name, *statuses, **body):
    """Calls the admin API: what it answers with one of these statuses, by default 200."""
    connection = http.client.HTTPConnection(ADDRESS, timeout=45)
    try:
        connection.request("POST", f"/api/{name}", json.dumps(body))
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise Refused(f"{name}: {error!r}") from error
    finally:
        connection.close()
    if answer.status not in (statuses or (200,)):
        raise Refused(f"{name}: {answer.status} {text}")
    return text


def stat(namespace):
    """What the store says about a namespace."""
    return json.loads(call("stat_namespace", key=namespace))
