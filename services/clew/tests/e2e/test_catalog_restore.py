"""The catalog is lost: with its backups, from them, without them. Every acknowledged span is found, once, or
the answer says what is missing."""

import json
import shutil

import pytest

from cluster import ClusterLedger, wait_until
from harness import run_clew
from ledger import Ledger

SETTINGS = ["metastore.shards=3", "ingester.flush.spans_max=100000", "ingester.flush.age_max=1h",
            "metastore.backup_interval=1h", "distributor.leader_wait=1s", "querier.leader_wait=5s",
            "compactor.poll_interval=200ms", "compactor.orphan_interval=500ms"]


class Apart:
    """Metastore members and ingesters with disks of their own, and one bucket. `nodes` are those that take
    spans and answer queries, as the ledgers of clusters want them."""

    def __init__(self, start, members=3, ingesters=2, settings=()):
        self.start_process = start
        self.settings = SETTINGS + list(settings)
        self.bucket = None
        self.made = 0
        self.metastores = [self._make("metastore", "compactor") for _ in range(members)]
        members = ",".join(node.rpc_addr for node in self.metastores)
        self.nodes = [self._make("distributor", "ingester", "querier") for _ in range(ingesters)]
        for node in self.metastores + self.nodes:
            node.settings.append(f"metastore.members=[{members}]")
            node.start(wait=False)
        for node in self.metastores + self.nodes:
            node.wait_ready(120)
        self.wait_led()

    def _make(self, *roles):
        node = self.start_process(*self.settings, roles=roles, run=False)
        node.name = f"{roles[0]}-{self.made}"
        self.made += 1
        self.bucket = self.bucket or node.dir / "bucket"
        node.settings += [f"node.name={node.name}", f"bucket.url={self.bucket}"]
        # What is lost here is meant to be alarming.
        node.errors_expected = True
        return node

    def alive(self):
        return [node for node in self.nodes if node.process.poll() is None]

    @property
    def addr(self):
        return self.metastores[0].rpc_addr

    def clew(self, *arguments):
        return run_clew(*arguments, "--addr", self.addr, timeout=120)

    def with_bucket(self, *arguments):
        where = ["--data-dir", str(self.metastores[0].data), "--set", f"bucket.url={self.bucket}"]
        return run_clew(*arguments, *where, timeout=120)

    def fsck(self):
        return self.clew("fsck", "--data-dir", str(self.metastores[0].data), "--set",
                         f"bucket.url={self.bucket}")

    def status(self):
        answer = self.nodes[0].get("/status/cluster", timeout=10)
        return answer.json() if answer.status == 200 else None

    def is_led(self):
        status = self.status()
        return status and len(status["shards"]) == 3 and all(
            any(replica["role"] == "leader" and replica["last_index"] is not None
                for replica in shard["replicas"]) for shard in status["shards"])

    def wait_led(self):
        wait_until(self.is_led, "every shard led")

    def flush(self):
        wait_until(lambda: self.nodes[0].flush() or True, "a flush")

    def lose_metastores(self, members=None):
        members = members if members is not None else self.metastores
        for node in members:
            node.kill9()
            shutil.rmtree(node.data)

    def start_metastores(self, members=None):
        for node in members if members is not None else self.metastores:
            node.start(wait=False)

    def restore(self, *arguments, ok=True):
        """`clew catalog` once the member is there to be asked."""
        def asked():
            done = self.clew("catalog", *arguments)
            away = ("no such service", "transport", "connect", "no answer")
            return None if any(word in done.stderr for word in away) else done
        done = wait_until(asked, "an answer")
        if ok:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def wait_restored(self):
        for node in self.metastores:
            node.wait_ready(120)
        self.wait_led()

    def verify(self, ledger):
        for node in self.nodes:
            ledger.server = node
            wait_until(lambda: ledger.verify(sample=20) or True, "complete answers")
            ledger.verify_search(10)
        ledger.verify()

    def verify_once(self, ledger):
        """Everything is flushed, and the blocks that queries read hold every span once."""
        self.verify(ledger)
        self.flush()
        self.verify(ledger)
        known = sum(len(spans) for spans in ledger.acked.values())
        listed = json.loads(self.clew("block", "list", "--json").stdout)
        counted = sum(block["spans"] for block in listed)
        # A batch that failed at first may be there twice, by the sender's doing.
        assert counted == known or ledger.unknown and counted > known, (counted, known)


def send(ledger, batches=4, first=0):
    for number in range(batches):
        assert ledger.send(ledger.batch(number=first + number))


@pytest.fixture
def apart(clew):
    return Apart(clew)


def test_all_disks_of_the_metastore_are_lost_and_a_backup_is_restored(apart):
    ledger = ClusterLedger(apart)
    send(ledger)
    apart.flush()
    backup = apart.clew("catalog", "backup")
    assert backup.returncode == 0, backup.stderr
    listed = json.loads(apart.with_bucket("catalog", "list", "--json").stdout)
    assert listed[0]["backup"] in backup.stdout and listed[0]["objects"] > 0
    # Flushed after the backup, and not flushed at all.
    send(ledger, first=10)
    apart.flush()
    send(ledger, first=20)
    apart.lose_metastores()
    apart.start_metastores()
    # They wait, and begin no cluster over objects that it would not know.
    wait_until(lambda: "catalog restore" in apart.metastores[0].log_text(), "a word of it")
    dry = apart.restore("restore", "--dry-run")
    assert "nothing was changed" in dry.stdout and "objects with" in dry.stdout, dry
    apart.restore("restore")
    apart.wait_restored()
    apart.verify(ledger)
    # A member that has the catalog does not take another one.
    again = apart.clew("catalog", "restore")
    assert again.returncode == 1 and "has a catalog" in again.stderr, again
    send(ledger, first=30)
    apart.verify_once(ledger)
    status = apart.status()
    assert len(status["metastore"]["voters"]) == 3
    found = apart.fsck()
    assert found.returncode == 0 and "0 broken" in found.stdout, found.stdout + found.stderr
    assert "0 foreign" in found.stdout
    # Everything may stop and start, and it is all there.
    for node in apart.metastores + apart.nodes:
        node.kill9()
    for node in apart.metastores + apart.nodes:
        node.start(wait=False)
    for node in apart.metastores + apart.nodes:
        node.wait_ready(120)
    apart.wait_led()
    apart.verify(ledger)


def test_a_file_is_restored_while_the_ingesters_are_away(apart, tmp_path):
    ledger = ClusterLedger(apart)
    send(ledger)
    apart.flush()
    backup = apart.clew("catalog", "backup").stdout.split(":")[0]
    kept = tmp_path / "backup"
    assert apart.with_bucket("catalog", "export", backup, str(kept)).returncode == 0
    # Shards grow, one is opened anew: the backup knows nothing of it.
    send(ledger, first=10)
    apart.flush()
    recovered = apart.clew("cluster", "recover", "0", "--force")
    assert recovered.returncode == 0, recovered.stderr
    apart.wait_led()
    send(ledger, first=20)
    for node in apart.nodes:
        node.kill9()
    apart.lose_metastores()
    shutil.rmtree(apart.bucket / "catalog")
    apart.start_metastores()
    none = apart.restore("restore", ok=False)
    assert none.returncode == 1 and "no backup" in none.stderr, none
    apart.restore("restore", "--file", str(kept))
    for node in apart.nodes:
        node.start(wait=False)
    apart.wait_restored()
    apart.verify_once(ledger)


def test_catalog_and_backups_are_lost_and_the_bucket_is_enough(clew):
    apart = Apart(clew, settings=["compactor.fan_in=2", "compactor.settle=0s", "compactor.cpu_share=1",
                                  "compactor.grace=11s", "querier.view_age_max=1s",
                                  "querier.query_timeout=10s"])
    ledger = ClusterLedger(apart)
    for number in range(5):
        send(ledger, batches=2, first=10 * number)
        apart.flush()

    def levels():
        listed = apart.clew("block", "list", "--json")
        return {block["level"] for block in json.loads(listed.stdout)}
    wait_until(lambda: max(levels()) >= 1, "a compaction")
    send(ledger, first=100)
    apart.lose_metastores()
    shutil.rmtree(apart.bucket / "catalog", ignore_errors=True)
    apart.start_metastores()
    apart.restore("rebuild", "--dry-run")
    apart.restore("rebuild", "--shards", "3")
    apart.wait_restored()
    apart.verify(ledger)
    send(ledger, first=200)
    apart.verify_once(ledger)
    found = apart.fsck()
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_lost_majority_is_given_up_for_what_one_member_has(apart):
    ledger = ClusterLedger(apart)
    send(ledger)
    apart.flush()
    refused = apart.clew("catalog", "recover")
    assert refused.returncode == 1 and "majority" in refused.stderr, refused
    lost = apart.metastores[1:]
    apart.lose_metastores(lost)
    send(ledger, first=10)
    apart.restore("recover", "--dry-run")
    done = apart.restore("recover")
    assert "start it again" in done.stdout, done
    survivor = apart.metastores[0]
    assert survivor.wait_dead() == 1
    survivor.start(wait=False)
    apart.start_metastores(lost)
    apart.wait_restored()
    assert len(apart.status()["metastore"]["voters"]) == 3
    apart.verify(ledger)
    send(ledger, first=20)
    apart.verify_once(ledger)


def test_an_old_backup_is_noticed_and_never_believed(apart):
    ledger = ClusterLedger(apart)
    send(ledger)
    apart.flush()
    assert apart.clew("catalog", "backup").returncode == 0
    kept = dict(ledger.acked)
    objects = set(apart.bucket.glob("flush/*/*/*"))
    ledger.acked = {}
    send(ledger, first=10)
    apart.flush()
    gone = ledger.acked
    # What was flushed since is lost with the catalog: nothing tells of it but the logs.
    for path in set(apart.bucket.glob("flush/*/*/*")) - objects:
        path.unlink()
    apart.lose_metastores()
    apart.start_metastores()
    apart.restore("restore")
    for node in apart.metastores:
        node.wait_ready(120)
    standing = wait_until(
        lambda: json.loads(apart.clew("catalog", "gaps", "--json").stdout)["standing"], "a shard that stands")
    shards = {each["shard"] for each in standing}
    # Queries do not pass over it, and nothing is collected meanwhile.
    trace = next(iter(gone))
    wait_until(lambda: apart.nodes[0].trace(trace)[1], "a partial answer")
    found = apart.fsck()
    assert found.returncode == 1 and "not settled" in found.stdout, found
    wrong = next((shard for shard in range(3) if shard not in shards), 99)
    assert apart.clew("catalog", "accept", str(wrong)).returncode == 1

    def accept():
        text = apart.clew("catalog", "gaps", "--json").stdout
        for each in json.loads(text)["standing"]:
            apart.clew("catalog", "accept", str(each["shard"]))
        return apart.is_led() and not json.loads(text)["standing"]
    wait_until(accept, "every shard goes on")
    gaps = json.loads(apart.clew("catalog", "gaps", "--json").stdout)["gaps"]
    assert {gap["shard"] for gap in gaps} >= shards
    # What is there is found, and the answer says that something is not.
    answer = wait_until(lambda: apart.nodes[0].trace(next(iter(kept))), "an answer")
    assert answer[0] and "entries" in answer[1], answer[1]
    ledger.acked = {}
    assert wait_until(lambda: ledger.send(ledger.batch(number=99)), "an acknowledgement")
    assert apart.clew("catalog", "forget").returncode == 0
    ledger.acked.update(kept)
    wait_until(lambda: apart.verify(ledger) or True, "complete answers")


def test_a_gap_in_the_bucket_is_named_and_needs_consent(apart):
    ledger = ClusterLedger(apart)
    assert apart.clew("catalog", "backup").returncode == 0
    flushed = []
    for number in range(3):
        before = set(apart.bucket.glob("flush/*/*/*"))
        send(ledger, first=10 * number)
        apart.flush()
        flushed.append(set(apart.bucket.glob("flush/*/*/*")) - before)
    for path in flushed[1]:
        path.unlink()
    apart.lose_metastores()
    apart.start_metastores()
    refused = apart.restore("restore", ok=False)
    assert refused.returncode == 1 and "--accept-gaps" in refused.stderr, refused
    assert "gap: shard" in refused.stdout, refused
    apart.restore("restore", "--accept-gaps")
    apart.wait_restored()
    answer = apart.nodes[0].get("/api/search", q="{}")
    assert answer.json()["status"] == "PARTIAL" and answer.headers["X-Clew-Partial"], answer


def test_the_leader_backs_up_and_keeps_so_many(clew):
    apart = Apart(clew, ingesters=1, settings=["metastore.backup_interval=1s",
                                               "metastore.backups_kept=2"])
    ledger = ClusterLedger(apart)

    def names():
        return sorted(path.name for path in (apart.bucket / "catalog").glob("*.backup"))
    seen = set()
    for number in range(4):
        send(ledger, batches=1, first=number)
        before = max(names(), default="")
        apart.flush()
        wait_until(lambda: max(names(), default="") > before, "a newer backup")
        seen |= set(names())
    assert len(seen) > 2
    wait_until(lambda: len(names()) == 2, "old ones are gone")
    leaders = [node for node in apart.metastores
               if node.metric("clew_metastore_backup_timestamp_seconds") > 0]
    assert len(leaders) >= 1
    assert sum(node.metric("clew_metastore_backup_failures_total") for node in leaders) == 0


def test_one_process_that_lost_its_disk_is_restored(clew):
    server = clew("metastore.backup_interval=1h", "ingester.flush.age_max=1h")
    server.errors_expected = True
    apart_bucket = server.dir / "elsewhere"
    assert server.stop() == 0
    shutil.rmtree(server.data)
    server.settings.append(f"bucket.url={apart_bucket}")
    server.start()
    ledger = Ledger(server)
    send(ledger)
    server.flush()
    assert run_clew("catalog", "backup", "--addr", server.rpc_addr).returncode == 0
    server.kill9()
    shutil.rmtree(server.data)
    server.start(wait=False)

    def restored():
        return run_clew("catalog", "restore", "--addr", server.rpc_addr).returncode == 0
    wait_until(restored, "a restore")
    # Its logs are gone with the disk, and nothing was in them that is not in the bucket.
    begun = [wait_until(lambda s=shard: run_clew(
        "cluster", "recover", str(s), "--addr", server.rpc_addr).returncode == 0, "a new log")
        for shard in range(len(json.loads(run_clew(
            "cluster", "status", "--json", "--addr", server.rpc_addr).stdout)["shards"]))]
    assert begun
    server.wait_ready(60)
    ledger.connect()
    ledger.verify()
    send(ledger, first=50)
    ledger.verify()
