"""The subcommands of CLIENT on tracking: TRACKING, CACHING, TRACKINGINFO and GETREDIR."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from cacheflow.errors import InvalidRequest
from cacheflow.values import KEY_BYTES_MAX, check_key
from cacheflow.wire.resp.arguments import SYNTAX, integer_of
from cacheflow.wire.resp.replies import OK, CommandError, bulk, encode, integer, map_head, set_head
from cacheflow.wire.resp.session import Arguments, RespSession
from cacheflow.wire.resp.tracking import Options

# The prefixes of one client.
PREFIXES_MAX: Final = 100
_NO_SUCH_CLIENT: Final = "ERR The client ID you want redirect to does not exist"
_SWITCHED: Final = (
    "ERR You can't switch {} mode{} before disabling tracking for this client, "
    "and then re-enabling it with a different mode."
)


def _options_in(session: RespSession, arguments: Arguments) -> Options:
    """Return the options that a CLIENT TRACKING gives. Raises CommandError for one that is wrong by itself."""
    options = Options()
    words = iter(arguments[3:])
    for raw in words:
        option = raw.upper()
        if option == b"REDIRECT" and (word := next(words, None)) is not None:
            if options.redirect:
                raise CommandError("ERR A client can only redirect to a single other client")
            options.redirect = integer_of(word)
            other = session.service.connections.get(options.redirect)
            # Nobody sends messages to the connections of others.
            if other is None or other.user_name != session.user_name:
                raise CommandError(_NO_SUCH_CLIENT)
        elif option == b"BCAST":
            options.broadcast = True
        elif option == b"OPTIN":
            options.opt_in = True
        elif option == b"OPTOUT":
            options.opt_out = True
        elif option == b"NOLOOP":
            options.no_loop = True
        elif option == b"PREFIX" and (word := next(words, None)) is not None:
            options.prefixes.append(_prefix(word))
        else:
            raise CommandError(SYNTAX)
    return options


def _prefix(raw: bytes) -> str:
    try:
        return check_key(raw.decode()) if raw else ""
    except (UnicodeDecodeError, InvalidRequest):
        raise CommandError(
            f"ERR a prefix is the beginning of a key: at most {KEY_BYTES_MAX} bytes of UTF-8, without control characters"
        ) from None


def _check(options: Options, present: Options | None) -> None:
    """Raise CommandError if ``options`` do not go together, or not with ``present``, those of a client that tracks already."""
    if present is not None and options.broadcast != present.broadcast:
        raise CommandError(_SWITCHED.format("BCAST", " on/off"))
    if options.prefixes and not options.broadcast:
        raise CommandError("ERR PREFIX option requires BCAST mode to be enabled")
    if options.broadcast and (options.opt_in or options.opt_out):
        raise CommandError("ERR OPTIN and OPTOUT are not compatible with BCAST")
    if options.opt_in and options.opt_out:
        raise CommandError("ERR You can't use both OPTIN and OPTOUT")
    if present is not None and ((options.opt_in and present.opt_out) or (options.opt_out and present.opt_in)):
        raise CommandError(_SWITCHED.format("OPTIN/OPTOUT", ""))
    if len(options.prefixes) + (0 if present is None else len(present.prefixes)) > PREFIXES_MAX:
        raise CommandError(f"ERR a client has at most {PREFIXES_MAX} prefixes")
    for number, prefix in enumerate(options.prefixes):
        # The same one once more changes nothing.
        old = [each for each in (present.prefixes if present is not None else ()) if each != prefix]
        _compare(prefix, old, "an existing prefix")
        _compare(prefix, options.prefixes[number + 1 :], "another provided prefix")


def _compare(prefix: str, others: Iterable[str], what: str) -> None:
    for other in others:
        if prefix.startswith(other) or other.startswith(prefix):
            raise CommandError(
                f"ERR Prefix '{prefix}' overlaps with {what} '{other}'. Prefixes for a single client must not overlap."
            )


def tracking(session: RespSession, arguments: Arguments) -> bytes:
    """Answer CLIENT TRACKING."""
    switch = arguments[2].upper()
    if switch not in (b"ON", b"OFF"):
        raise CommandError(SYNTAX)
    options = _options_in(session, arguments)
    if switch == b"OFF":
        session.end_tracking()
        return OK
    present = None if session.tracker is None else session.tracker.options
    _check(options, present)
    prefixes, options.prefixes = options.prefixes, []
    if present is not None:
        options = replace(options, prefixes=present.prefixes, caching=present.caching)
    prefixes = [prefix for prefix in prefixes if prefix not in options.prefixes]
    if options.broadcast and not prefixes and not options.prefixes:
        prefixes = [""]
    session.track(options)
    try:
        for prefix in prefixes:
            session.tracker.follow(prefix)  # type: ignore[union-attr]  # it tracks now
    except InvalidRequest as refused:
        session.end_tracking()
        raise CommandError(f"ERR {refused}; tracking is off") from None
    return OK


def caching(session: RespSession, arguments: Arguments) -> bytes:
    """Answer CLIENT CACHING."""
    options = None if session.tracker is None else session.tracker.options
    if options is None or not (options.opt_in or options.opt_out):
        raise CommandError(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
        )
    word = arguments[2].upper()
    if word not in (b"YES", b"NO"):
        raise CommandError(SYNTAX)
    if word == b"YES" and not options.opt_in:
        raise CommandError("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
    if word == b"NO" and not options.opt_out:
        raise CommandError("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
    session.cache_next(word == b"YES")
    return OK


def tracking_info(session: RespSession, arguments: Arguments) -> bytes:
    """Answer CLIENT TRACKINGINFO."""
    tracker = session.tracker
    flags, redirect, prefixes = ["off"], -1, []
    if tracker is not None:
        options = tracker.options
        named = {
            "on": True,
            "bcast": options.broadcast,
            "optin": options.opt_in,
            "caching-yes": options.caching is True,
            "optout": options.opt_out,
            "caching-no": options.caching is False,
            "noloop": options.no_loop,
            "broken_redirect": tracker.is_broken,
        }
        flags = [name for name, holds in named.items() if holds]
        redirect, prefixes = options.redirect, options.prefixes
    protocol = session.protocol
    # A set in Redis' order.
    told = set_head(protocol, len(flags)) + b"".join([bulk(flag.encode()) for flag in flags])
    rest = (bulk(b"redirect"), integer(redirect), bulk(b"prefixes"), encode(protocol, prefixes))
    return map_head(protocol, 3) + bulk(b"flags") + told + b"".join(rest)


def get_redirect(session: RespSession, arguments: Arguments) -> bytes:
    """Answer CLIENT GETREDIR."""
    return integer(-1 if session.tracker is None else session.tracker.options.redirect)
