"""What Redis 7.0.15 answered about channels and subscriptions, on a connection of its own with an empty database for each group."""

# ruff: noqa: E501

from __future__ import annotations

CHANNEL_CONVERSATIONS: dict[str, list[tuple[str, bytes]]] = {
    "subscribe": [
        ("SUBSCRIBE", b"-ERR wrong number of arguments for 'subscribe' command\r\n"),
        (
            "SUBSCRIBE a b a",
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:2\r\n",
        ),
        ("PSUBSCRIBE a*", b"*3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:3\r\n"),
        ("SSUBSCRIBE a", b"*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n"),
        ("PING", b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
        ("PING x", b"*2\r\n$4\r\npong\r\n$1\r\nx\r\n"),
        ("PING x y", b"-ERR wrong number of arguments for 'ping' command\r\n"),
        ("GET", b"-ERR wrong number of arguments for 'get' command\r\n"),
        (
            "GET k",
            b"-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n",
        ),
        (
            "client info",
            b"-ERR Can't execute 'client|info': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n",
        ),
        (
            "HELLO 3",
            b"-ERR Can't execute 'hello': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n",
        ),
        (
            "MULTI",
            b"-ERR Can't execute 'multi': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n",
        ),
        ("FOO", b"-ERR unknown command 'FOO', with args beginning with: \r\n"),
        ("UNSUBSCRIBE x", b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nx\r\n:3\r\n"),
        ("UNSUBSCRIBE a", b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:2\r\n"),
        ("UNSUBSCRIBE", b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:1\r\n"),
        ("UNSUBSCRIBE", b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:1\r\n"),
        ("PUNSUBSCRIBE", b"*3\r\n$12\r\npunsubscribe\r\n$2\r\na*\r\n:0\r\n"),
        (
            "GET k",
            b"-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n",
        ),
        ("SUNSUBSCRIBE", b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n"),
        ("SUNSUBSCRIBE", b"*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n"),
        ("PUNSUBSCRIBE x", b"*3\r\n$12\r\npunsubscribe\r\n$1\r\nx\r\n:0\r\n"),
        ("GET k", b"$-1\r\n"),
        ("SUBSCRIBE a", b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"),
        ("RESET", b"+RESET\r\n"),
        ("PING", b"+PONG\r\n"),
        ("PUBSUB NUMSUB a", b"*2\r\n$1\r\na\r\n:0\r\n"),
    ],
    "publish": [
        ("PUBLISH a", b"-ERR wrong number of arguments for 'publish' command\r\n"),
        ("PUBLISH a b c", b"-ERR wrong number of arguments for 'publish' command\r\n"),
        ("PUBLISH a b", b":0\r\n"),
        ("SPUBLISH a b", b":0\r\n"),
        ("PUBSUB", b"-ERR wrong number of arguments for 'pubsub' command\r\n"),
        ("PUBSUB FOO", b"-ERR unknown subcommand 'FOO'. Try PUBSUB HELP.\r\n"),
        (
            "PUBSUB CHANNELS a b",
            b"-ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.\r\n",
        ),
        ("PUBSUB CHANNELS", b"*0\r\n"),
        ("PUBSUB CHANNELS a*", b"*0\r\n"),
        ("PUBSUB NUMSUB", b"*0\r\n"),
        ("PUBSUB NUMSUB a", b"*2\r\n$1\r\na\r\n:0\r\n"),
        ("PUBSUB NUMPAT", b":0\r\n"),
        ("PUBSUB NUMPAT x", b"-ERR wrong number of arguments for 'pubsub|numpat' command\r\n"),
        ("PUBSUB SHARDCHANNELS", b"*0\r\n"),
        ("PUBSUB SHARDNUMSUB", b"*0\r\n"),
        ("MULTI", b"+OK\r\n"),
        ("PUBLISH a b", b"+QUEUED\r\n"),
        ("SET k v", b"+QUEUED\r\n"),
        ("SPUBLISH a b", b"+QUEUED\r\n"),
        ("EXEC", b"*3\r\n:0\r\n+OK\r\n:0\r\n"),
    ],
}
