"""The sandbox: nothing of Python is in reach of a script, and whatever a script does is bounded."""

from __future__ import annotations

import gc
import hashlib
import logging
import threading
import time
import weakref

import pytest

from cacheflow.wire.resp.scripting import sandbox as module
from cacheflow.wire.resp.scripting.sandbox import GivenUp, Sandbox

# The time of a script in these tests; and how long, at most, one may go on behind it.
TIME_S = 0.1
LATE_S = 2.0


def run(script: str, *, sandbox: Sandbox | None = None, seconds: float = TIME_S, answer: bytes = b"$-1\r\n") -> bytes:
    """The encoded reply of a script whose commands are all answered with ``answer``."""
    source = script.encode()
    sha = hashlib.sha1(source).hexdigest().encode()
    ends = time.thread_time() + seconds
    return (sandbox or Sandbox()).run(
        source, sha, [b"k"], [b"v"], b"$-1\r\n", lambda words: answer, lambda: time.thread_time() >= ends
    )


def word(script: str) -> str:
    """What the script returns: a text."""
    reply = run(script)
    assert reply.startswith(b"$"), reply
    return reply.split(b"\r\n", 1)[1][:-2].decode()


# Ways out -------------------------------------------------------------------------------------------------------------

HIDDEN = [
    "python",
    "io",
    "package",
    "debug",
    "require",
    "module",
    "dofile",
    "loadfile",
    "newproxy",
    "getfenv",
    "setfenv",
    "print",
]


@pytest.mark.parametrize("name", HIDDEN)
def test_what_leads_outside_does_not_exist(name: str) -> None:
    assert b"nonexistent global variable" in run(f"return {name}")
    # Code that is loaded has the same world.
    assert b"nonexistent global variable" in run(f"return loadstring('return {name}')()")
    assert b"nonexistent global variable" in run(
        f"local r = {{'return {name}'}} return load(function() return table.remove(r) end)()"
    )
    assert b"nonexistent global variable" in run(f"return coroutine.wrap(function() return {name} end)()")


def test_no_userdata_is_in_the_world_but_null() -> None:
    script = """
        local seen, found = {}, {}
        local function walk(value, path)
          if type(value) == 'userdata' then found[#found + 1] = path end
          if type(value) ~= 'table' or seen[value] then return end
          seen[value] = true
          for name, inner in pairs(value) do walk(inner, path .. '.' .. tostring(name)) end
        end
        for name in string.gmatch('redis cjson cmsgpack bit string table math coroutine os KEYS ARGV', '%a+') do
          walk(_G[name], name)
        end
        local ok, wrong = pcall(redis.call, 'X')
        walk(wrong, 'error')
        return table.concat(found, ' ')
    """
    assert word(script) == "cjson.null"


@pytest.mark.parametrize(
    "script",
    [
        "return getmetatable(_G)",
        "return getmetatable('')",
        "return getmetatable(cjson.null)",
        "return getmetatable(redis.call)",
        "return string.dump",
        "return os.execute",
        "return os.getenv",
        "return math.randomseed and nil",
        "return table.setn",
        "return loadstring('\\27Lua')",
    ],
)
def test_nothing_more_is_shown(script: str) -> None:
    assert run(script) == b"$-1\r\n"


def test_bytecode_is_not_loaded() -> None:
    bytecode = Sandbox()._lua.eval("string.dump(function() return 7 end)")
    assert bytecode.startswith(b"\x1bLua")
    for source, reply in (
        (b"return type(loadstring(ARGV[1]))", b"$3\r\nnil\r\n"),
        (b"local r = {ARGV[1]} return type(load(function() return table.remove(r) end))", b"$3\r\nnil\r\n"),
        (bytecode, b"-ERR Error compiling script (new function): bytecode is not loaded\r\n"),
    ):
        arguments = source, source[:20], [b"k"], [bytecode], b"$-1\r\n", lambda words: b"+OK\r\n", lambda: False
        assert Sandbox().run(*arguments) == reply


@pytest.mark.parametrize(
    "script",
    [
        "x = 1",
        "function f() end",
        "_G.x = 1",
        "rawset(_G, 'x', 1)",
        "setmetatable(_G, {})",
        "KEYS = 1",
        "loadstring('x = 1')()",
    ],
)
def test_the_world_cannot_be_changed(script: str) -> None:
    assert b"Attempt to modify a readonly table" in run(script)


def test_what_one_script_changes_the_next_does_not_see() -> None:
    sandbox = Sandbox()
    spoil = "for name in pairs(string) do string[name] = nil end redis.call = nil cjson.encode = nil KEYS[1] = 'x'"
    assert run(f"{spoil} table.insert = nil", sandbox=sandbox) == b"$-1\r\n"
    assert run("cjson.encode_max_depth(1) cjson.encode_number_precision(2) return 1", sandbox=sandbox) == b":1\r\n"
    script = "return {('x'):rep(2), string.rep('y', 2), cjson.encode({{1 / 3}}), KEYS[1], redis.call('X'), type(table.insert)}"
    assert run(script, sandbox=sandbox) == (
        b"*6\r\n$2\r\nxx\r\n$2\r\nyy\r\n$20\r\n[[0.33333333333333]]\r\n$1\r\nk\r\n$-1\r\n$8\r\nfunction\r\n"
    )


def test_a_fault_of_a_command_is_an_error_and_no_object(caplog: pytest.LogCaptureFixture) -> None:
    def stumble(words: list[bytes]) -> bytes:
        raise RuntimeError("a fault")

    source = b"local ok, wrong = pcall(redis.call, 'X') return {type(wrong), wrong}"
    reply = Sandbox().run(source, b"sha", [], [], b"$-1\r\n", stumble, lambda: False)
    assert reply.startswith(b"*2\r\n$6\r\nstring\r\n$") and b"ERR the command failed inside this node" in reply
    assert "a fault" in caplog.text


# Bounds ---------------------------------------------------------------------------------------------------------------

ENDLESS = [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "local function f() return f() end f()",
    "return setmetatable({}, {__index = function() while true do end end}).x",
    "xpcall(function() while true do end end, function() while true do end end)",
    "xpcall(error, function() while true do end end)",
    "coroutine.wrap(function() while true do end end)()",
    "while true do pcall(coroutine.wrap(function() while true do end end)) end",
    "local function f(d) for i = 1, 90 do if d > 0 then coroutine.wrap(f)(d - 1) end end end f(12)",
    "local function f(d) for i = 1, 10 do if d > 0 then pcall(coroutine.wrap(f), d - 1) end end end f(30)",
    "local co = coroutine.create(function() while true do coroutine.yield() end end) while true do coroutine.resume(co) end",
    "table.sort({3, 1, 2}, function() while true do end end)",
    "string.gsub('x', 'x', function() while true do end end)",
    "while true do ('x'):rep(1000000):upper() end",
    "local t = {} for i = 1, 50000 do t[i] = i end while true do table.insert(t, 1, 0) table.remove(t, 1) end",
    "local t = {} for i = 1, 50000 do t[i] = i end while true do table.sort(t) end",
    "local s = string.rep('a', 300) while true do string.find(s, '.-.-b') end",
    "local s = string.rep('a', 5000) while true do string.find(s, s, 1, true) end",
    "local s = '[' .. string.rep('1,', 50000) .. '1]' while true do cjson.decode(s) end",
    "local t = {} for i = 1, 10000 do t[i] = i end while true do cmsgpack.unpack(cmsgpack.pack(t)) end",
    "while true do loadstring(string.rep('x = 1 ', 10000)) end",
    "while true do redis.call('X') end",
    "while true do redis.sha1hex(string.rep('x', 1000000)) end",
    "while true do tonumber(string.rep('1', 1000000)) end",
    "while true do pcall(string.rep, 1, 3e7) end",
    "local s, t = string.rep('x', 10000), {} for i = 1, 1000 do t[i] = s end while true do table.concat(t) end",
    "local s, t = string.rep('x', 3000), {} for i = 1, 50000 do t[i] = s end while true do table.sort(t) end",
    "local s = string.rep('x', 8000000) while true do string.format(s) end",
]


@pytest.mark.parametrize("script", ENDLESS)
def test_what_does_not_end_is_ended(script: str) -> None:
    began = time.thread_time()
    with pytest.raises(GivenUp, match="its time is over"):
        run(script)
    assert time.thread_time() - began < TIME_S + LATE_S


@pytest.mark.parametrize(
    "script",
    [
        "return string.rep('x', 1e9)",
        "return ('x'):rep(1e9)",
        "return string.find(string.rep('a', 5000), string.rep('a-', 20) .. 'b')",
        "return string.match(string.rep('a', 5000), '.-.-.-b')",
        "return string.gsub(string.rep('a', 5000), '(.-)(.-)(.-)b', 'x')",
        "for word in string.gmatch(string.rep('a', 5000), '.-.-.-b') do end",
        "return string.find('a', string.rep('a?', 200000))",
        "return string.find(string.rep('a', 100000), string.rep('a', 50000) .. 'b', 1, true)",
        "return string.gsub(string.rep('a', 10000), '', string.rep('b', 10000))",
        "return table.concat({1, 2, 3}, string.rep('x', 30000000))",
        "local s, t = string.rep('x', 1000000), {} for i = 1, 10000 do t[i] = s end table.sort(t)",
    ],
)
def test_what_takes_long_in_one_call_is_refused(script: str) -> None:
    began = time.thread_time()
    assert b"too large for a script" in run(script, seconds=10)
    assert time.thread_time() - began < 1


def test_what_scripts_really_search_is_not_refused() -> None:
    assert word("return string.match('2026-11-29T12:30', '^(%d+)-(%d+)-(%d+)T(%d+):(%d+)$')") == "2026"
    count = "local n = 0 for part in string.gmatch(string.rep('word,', 20000), '[^,]+') do n = n + 1 end return n"
    assert run(count, seconds=10) == b":20000\r\n"
    assert run("return #string.gsub(string.rep('a b ', 10000), '%s+', '')", seconds=10) == b":20000\r\n"


@pytest.mark.parametrize(
    "script",
    [
        "local t = {} while true do t[#t + 1] = string.rep('x', 100000) .. #t end",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
    ],
)
def test_memory_is_bounded(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES_MAX", 4 * 1024 * 1024)
    sandbox = Sandbox()
    # An error that a script could take for its reply would be no sign that it has left off in the middle.
    with pytest.raises(GivenUp, match="memory"):
        run(script, sandbox=sandbox, seconds=20)
    assert sandbox._lua.get_memory_used() < 6 * 1024 * 1024


def test_memory_that_runs_out_at_any_step_ends_the_script_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where Lua runs out of memory inside a call of Python's, it leaves with the interpreter's lock: all threads stand still.
    script = """
        local n, kept = 0, {}
        for i = 1, 100 do
          local ok, answer = pcall(redis.call, 'X')
          kept[i] = answer
          if not ok then break end
          pcall(redis.log, 0, 'x') pcall(redis.sha1hex, 'x' .. i)
          n = n + 1
        end
        return n
    """
    replies = set()
    sandbox = Sandbox()
    for step in range(300):
        monkeypatch.setattr(module, "MEMORY_BYTES_MAX", 4_000 + 400 * step)
        try:
            replies.add(run(script, sandbox=sandbox, seconds=20, answer=b"$1000\r\n%b\r\n" % (b"x" * 1000)))
        except GivenUp as why:
            assert "memory" in str(why)
            replies.add(b"given up")
            sandbox = Sandbox()
    assert {b":100\r\n", b"given up"} <= replies


def test_a_sandbox_that_is_dropped_is_freed_at_once() -> None:
    # A server's garbage is seldom collected, and a sandbox may hold 32 MiB of a script that was given up.
    gc.disable()
    try:
        sandbox = Sandbox()
        with pytest.raises(GivenUp):
            run("local t = string.rep('x', 1e6) while true do redis.call('X') end", sandbox=sandbox)
        dropped = weakref.ref(sandbox)
        del sandbox
        assert dropped() is None
    finally:
        gc.enable()


def test_compiled_scripts_take_so_much_memory_and_no_more() -> None:
    sandbox = Sandbox()
    for number in range(100):
        source = b"do local f = function() end end " * 2000 + b"-- %d" % number
        assert sandbox.check(source, b"%d" % number) == b""
    assert sandbox._lua.get_memory_used() < 16 * 1024 * 1024


def test_a_script_costs_as_much_beside_many_compiled_ones() -> None:
    sandbox = Sandbox()

    def cost() -> float:
        began = time.thread_time()
        for _ in range(100):
            run("return 1", sandbox=sandbox)
        return time.thread_time() - began

    alone = cost()
    for number in range(15):
        assert sandbox.check(b"do local f = function() end end " * 2000 + b"-- %d" % number, b"%d" % number) == b""
    assert cost() < 20 * alone


@pytest.mark.parametrize("command", ["call('X')", "pcall('X')"])
def test_a_script_of_slow_commands_ends_behind_the_command_that_takes_too_long(command: str) -> None:
    ends = time.thread_time() + TIME_S
    calls = 0

    def slow(words: list[bytes]) -> bytes:
        nonlocal calls
        calls += 1
        until = time.thread_time() + TIME_S / 4
        while time.thread_time() < until:
            pass
        return b"$-1\r\n"

    with pytest.raises(GivenUp, match="its time is over"):
        source = f"while true do redis.{command} end".encode()
        Sandbox().run(source, b"sha", [], [], b"$-1\r\n", slow, lambda: time.thread_time() >= ends)
    assert calls <= 5


def test_what_is_nested_too_deeply_is_an_error() -> None:
    for script in (
        "local t = {} for i = 1, 1000 do t = {t} end return t",
        "local function f() return 1 + f() end return f()",
        "return loadstring('return ' .. string.rep('(', 1000) .. '1' .. string.rep(')', 1000))()",
        "return cjson.decode(string.rep('[', 1500))",
        "return cmsgpack.unpack(string.rep('\\145', 30000))",
        "local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x",
    ):
        assert b"-ERR" in run(script, seconds=10), script


def test_a_script_logs_so_much_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "cacheflow.script"):
        assert (
            run("for i = 1, 500 do redis.log(redis.LOG_WARNING, 'line', i, string.rep('x', 5000)) end return 1")
            == b":1\r\n"
        )
    assert len(caplog.records) == 100
    assert caplog.records[6].getMessage().startswith("a script says: line 7 xxx")
    assert max(len(record.getMessage()) for record in caplog.records) < 1100


def test_others_run_while_lua_does() -> None:
    # This thread counts; with the interpreter's lock held by Lua it would not get beyond a few.
    counted, running = 0, threading.Event()

    def work() -> None:
        running.set()
        with pytest.raises(GivenUp):
            run("while true do end", seconds=0.2)

    thread = threading.Thread(target=work)
    thread.start()
    running.wait()
    while thread.is_alive():
        counted += 1
    thread.join()
    assert counted > 10_000
