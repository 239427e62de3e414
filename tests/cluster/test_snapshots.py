"""A journal that has grown makes way for a snapshot while clients write; whoever missed that is sent one."""

from __future__ import annotations

from pathlib import Path

from cluster.processes import NodeProcess, Nodes, wait_for

# The journal is replaced once it has gathered 64 MiB.
VALUE = "x" * 1_000_000
WRITES = 75


def snapshots(node: NodeProcess) -> list[Path]:
    return sorted(node.data_dir.glob("snapshot-*.cfs"))


def test_a_follower_that_was_down_comes_back_through_a_snapshot(folder: Path) -> None:
    with Nodes(3, folder, ["--max-items", "30"]) as nodes:
        nodes.start()
        nodes[0].put("early", "bird", ttl=600)
        absent = nodes.others(nodes.leader())[0]
        absent.kill()
        leader = nodes.leader()
        with leader.connect() as connection:
            for number in range(WRITES):
                answer = connection.request("PUT", f"/cache/large-{number}", {"value": VALUE})
                assert answer.status == 201
                if number % 10 == 0:
                    assert leader.own_value("early") == "bird"
        wait_for(lambda: all(snapshots(node) for node in nodes.others()), "a snapshot is built")
        wait_for(lambda: "snapshot at" in leader.output(), "and used")
        absent.start()
        nodes.wait_whole()
        wait_for(lambda: "took over the leader's snapshot" in absent.output(), "it took the snapshot")
        assert absent.try_get("/metrics?format=json").body["snapshots_received_total"] == 1
        assert leader.try_get("/metrics?format=json").body["snapshots_sent_total"] == 1
        nodes.wait_level()
        wait_for(lambda: len({node.digest("?full") for node in nodes.all}) == 1, "the whole contents are equal")
        assert absent.value(f"large-{WRITES - 1}") == VALUE

        # What stands on a snapshot can be stood on again: a restart, and a damage that is found.
        absent.kill()
        absent.start()
        nodes.wait_whole()
        assert absent.value("early") == "bird"
        absent.kill()
        newest = snapshots(absent)[-1]
        data = bytearray(newest.read_bytes())
        data[len(data) // 2] ^= 1
        newest.write_bytes(data)
        assert absent.start().wait() == 2
        last = absent.output().splitlines()[-1]
        assert newest.name in last and "--seed" in last, last
        assert "Traceback" not in absent.output()
