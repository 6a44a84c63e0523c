"""What fetching from the hub and uploading to it share: errors in one line with
the codes of the program, another try, and Ctrl-C. Imports no huggingface_hub
before it is needed, since that takes time."""

import os
import re
import signal
import sys
import threading
import time

# Otherwise each start asks the hub which programs are agents, and tells it
# whether it was started by one.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

CODES = {"invalid_argument": 2, "not_found": 3, "corrupt": 4, "io": 5,
         "not_supported": 6, "cancelled": 130}
STOPS = {signal.SIGINT, signal.SIGTERM}
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)[\w/-][\w./-]*", re.ASCII)


class Refused(Exception):
    """An error with a code of the program's and a line for the user."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def shown(text, limit=600):
    """The text on one line, with characters escaped that would steer a terminal."""
    words = " ".join(str(text).split())[:limit]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def checked_token():
    """The user's token, if there is one. Refuses one that no HTTP header can hold:
    the library's error would quote it."""
    from huggingface_hub import get_token
    token = get_token()
    if token and not re.fullmatch(r"[!-~]+", token):
        raise Refused("invalid_argument", "the token (HF_TOKEN, or the file that "
                      "`hf auth login` writes) holds characters that none has")
    return token


def quieten(bars):
    """Has the library say nothing, and show bars only on a terminal and if `bars`."""
    import huggingface_hub
    huggingface_hub.logging.set_verbosity_error()
    if not (bars and sys.stderr.isatty()):
        huggingface_hub.utils.disable_progress_bars()


def passes(error):
    """Whether an error may pass if the call is tried again."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429, 500, 502, 503, 504)
    return (isinstance(error, httpx2.TransportError)
            and not isinstance(error, httpx2.UnsupportedProtocol))


def patiently(call):
    """The result of `call`, which is tried up to three times while its errors may
    pass. A hub that can't be connected to is not tried again."""
    import httpx2
    for pause in (1, 2):
        try:
            return call()
        except Exception as error:
            if not passes(error) or isinstance(error, httpx2.ConnectError):
                raise
        time.sleep(pause)
    return call()


def of_status(error):
    """Code and line for an answer of the hub that is an error."""
    from huggingface_hub import constants
    status = error.response.status_code
    said = shown(error.server_message or "", 300)
    said = f"{status}: {said}" if said else str(status)
    if status == 401:
        return "io", (f"the hub knows no such repository or wants another token "
                      f"({said}); check the name, or set HF_TOKEN")
    if status == 403:
        return "io", (f"the hub refuses ({said}); the token needs access to this, "
                      f"see {constants.ENDPOINT}/settings/tokens and HF_TOKEN")
    if status == 400:
        return "invalid_argument", f"the hub refuses what was sent ({said})"
    if status == 404:
        return "not_found", f"the hub has no such thing ({said})"
    return "io", f"the hub answered {said}; run again"


def explain(error):
    """Code and line for any exception that fetching or uploading has raised."""
    import httpx2
    from huggingface_hub import constants, errors
    if isinstance(error, Refused):
        return error.code, str(error)
    if isinstance(error, errors.GatedRepoError):
        return "io", (f"{error.response.status_code}: one has to accept its terms "
                      f"at {constants.ENDPOINT} first and then set HF_TOKEN")
    if isinstance(error, errors.RevisionNotFoundError):
        return "not_found", "no such revision: no branch, tag or commit"
    if (isinstance(error, errors.RepositoryNotFoundError)
            and error.response.status_code == 404):
        return "not_found", "no such repository, or one that HF_TOKEN may not see"
    if isinstance(error, errors.LocalEntryNotFoundError):
        lack = ("its copy in the cache is incomplete"
                if isinstance(error, errors.IncompleteSnapshotError)
                else "it is not in the cache")
        if constants.is_offline_mode():
            return "not_found", f"{lack}, and HF_HUB_OFFLINE is set"
        if error.__cause__:
            return explain(error.__cause__)
        return "not_found", lack
    if isinstance(error, errors.HfHubHTTPError):
        return of_status(error)
    if isinstance(error, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
        return "invalid_argument", (f"HF_ENDPOINT is {shown(constants.ENDPOINT)}, "
                                    "which is no http:// or https:// address")
    if isinstance(error, httpx2.TransportError):
        return "io", (f"can't reach the hub ({type(error).__name__} {shown(error)}); "
                      "check the network and run again")
    if "Consistency check failed" in str(error):
        return "corrupt", f"a file arrived damaged; run again ({shown(error, 200)})"
    if isinstance(error, RuntimeError) and error.__cause__:  # of a worker thread
        code, text = explain(error.__cause__)
        return code, f"{shown(error, 200)} {text}"
    if isinstance(error, OSError):
        return "io", shown(error)
    return ("invalid_argument" if isinstance(error, ValueError) else "io",
            f"{shown(error)} ({type(error).__name__})")


def on_stop(action):
    """Runs `action`, which ends the process, on Ctrl-C or SIGTERM, whatever other
    threads wait for. A thread of its own hears these signals, and no other does
    until the function is called that this returns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    done = threading.Event()

    def wait():
        signal.sigwait(STOPS)
        if not done.is_set():
            action()

    def release():
        done.set()
        signal.pthread_kill(thread.ident, signal.SIGTERM)
        thread.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return release
