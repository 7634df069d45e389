"""What the chart does with a release that is there: a server that knows its StatefulSets answers helm."""

import http.server
import json
import threading

import pytest
import yaml

from chart import BUCKET, CHART, helm, merged, of_kind, render

RESOURCES = [{"name": f"{kind.lower()}s", "singularName": kind.lower(), "namespaced": True, "kind": kind,
              "verbs": ["get", "list"]} for kind in ("StatefulSet", "Deployment")]


class Api:
    """As much of the API of Kubernetes as `lookup` asks for."""

    def __init__(self, objects):
        found = {f"{each['kind'].lower()}s/{each['metadata']['name']}": each
                 for each in of_kind(objects, "StatefulSet", "Deployment")}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.partition("?")[0]
                answer = answers(path)
                body = json.dumps(answer or {
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                    "code": 404}).encode()
                self.send_response(200 if answer else 404)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        def answers(path):
            if path == "/version":
                return {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
            if path == "/api":
                return {"kind": "APIVersions", "versions": ["v1"]}
            if path == "/apis":
                version = {"groupVersion": "apps/v1", "version": "v1"}
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                    {"name": "apps", "versions": [version], "preferredVersion": version}]}
            if path in ("/api/v1", "/apis/apps/v1"):
                group = path.removeprefix("/apis/").removeprefix("/api/")
                return {"kind": "APIResourceList", "groupVersion": group,
                        "resources": RESOURCES if group == "apps/v1" else []}
            return found.get(path.removeprefix("/apis/apps/v1/namespaces/tracing/"))

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def upgrade(tmp_path):
    """Renders an upgrade of a release that was rendered with other values."""
    def render_over(before, values, change=lambda each: None):
        objects = render(before)
        for each in of_kind(objects, "StatefulSet", "Deployment"):
            change(each)
        api = Api(objects)
        try:
            config = tmp_path / "config"
            config.write_text(yaml.safe_dump({
                "apiVersion": "v1", "kind": "Config", "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": api.url}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": ""}}]}))
            return helm("template", "clew", str(CHART), "--namespace", "tracing", "--dry-run=server",
                        "--is-upgrade", f"--kubeconfig={config}", values=values)
        finally:
            api.close()
    return render_over


def hook(done):
    assert done.returncode == 0, done.stderr
    (job,) = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "Job"]
    return job["metadata"]["annotations"]["helm.sh/hook"].split(",")


def stopped(each):
    each["spec"]["replicas"] = 0


FOUR = merged(BUCKET, {"ingester": {"replicas": 4}})
FIVE = merged(BUCKET, {"metastore": {"replicas": 5}})
ZONES = merged(BUCKET, {"ingester": {"replicas": 6, "zones": ["a", "b", "c"]}})


def test_an_upgrade_needs_the_cluster_only_if_the_number_of_ingesters_changes(upgrade):
    assert hook(upgrade(BUCKET, BUCKET)) == ["pre-rollback"]
    assert hook(upgrade(FOUR, BUCKET)) == ["pre-rollback", "pre-upgrade"]
    # What an earlier, smaller number drained takes replicas again.
    assert hook(upgrade(BUCKET, FOUR)) == ["pre-rollback", "pre-upgrade"]
    assert hook(upgrade(ZONES, merged(ZONES, {"ingester": {"replicas": 3}}))) == [
        "pre-rollback", "pre-upgrade"]
    off = merged(BUCKET, {"ingester": {"scaleIn": {"enabled": False}}})
    assert "scale-in" not in upgrade(FOUR, off).stdout


def test_autoscaling_begins_with_the_pods_that_are_there(upgrade):
    """Without a number Kubernetes would take one, and stop all others, until the autoscaler looks."""
    scaled = merged(BUCKET, {"querier": {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 9}}})

    def replicas(number):
        def change(each):
            if each["metadata"]["name"] == "clew-querier":
                each["spec"]["replicas"] = number
        done = upgrade(BUCKET, scaled, change)
        assert done.returncode == 0, done.stderr
        (querier,) = [each for each in yaml.safe_load_all(done.stdout)
                      if each and each["kind"] == "Deployment" and each["metadata"]["name"] == "clew-querier"]
        return querier["spec"]["replicas"]

    assert replicas(7) == 7
    assert replicas(2) == 3
    # Where nothing is there yet, or nobody can be asked, the number is the autoscaler's.
    (fresh,) = [each for each in of_kind(render(scaled), "Deployment") if each["metadata"]["name"] == "clew-querier"]
    assert "replicas" not in fresh["spec"]


def test_a_release_that_was_stopped_can_be_upgraded(upgrade):
    assert hook(upgrade(BUCKET, BUCKET, stopped)) == ["pre-rollback"]


def test_the_members_of_the_metastore_stay(upgrade):
    done = upgrade(BUCKET, FIVE)
    assert done.returncode != 0 and "cannot be changed to 5" in done.stderr, done.stderr


CHANGED = {
    "preset": (BUCKET, merged(BUCKET, {"preset": "large", "ingester": {"replicas": 3}}),
               "metastore.persistence", "10Gi"),
    "size": (BUCKET, merged(BUCKET, {"ingester": {"persistence": {"size": "50Gi"}}}),
             "ingester.persistence", "clew-ingester"),
    "zone-size": (ZONES, merged(ZONES, {"ingester": {"persistence": {"size": "50Gi"}}}),
                  "ingester.persistence", "clew-ingester-a"),
    "class": (BUCKET, merged(BUCKET, {"global": {"storageClass": "fast"}}),
              "metastore.persistence", "storage class fast"),
    "modes": (BUCKET, merged(BUCKET, {"ingester": {"persistence": {"accessModes": ["ReadWriteOncePod"]}}}),
              "ingester.persistence", "ReadWriteOncePod"),
    "single": ({}, {"single": {"persistence": {"enabled": False}}}, "single.persistence", "to (none)"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_claims_that_cannot_be_changed_are_refused(name, upgrade):
    before, values, key, told = CHANGED[name]
    done = upgrade(before, values)
    assert done.returncode != 0
    assert key in done.stderr and told in done.stderr and "--cascade=orphan" in done.stderr, done.stderr


def test_the_same_size_in_other_words_is_no_change(upgrade):
    large = merged(BUCKET, {"ingester": {"persistence": {"size": "1024Gi", "storageClass": "fast"}}})
    same = merged(large, {"ingester": {"persistence": {"size": "1Ti"}}})
    assert upgrade(large, same).returncode == 0
    assert upgrade(merged(BUCKET, {"preset": "medium"}), merged(BUCKET, {
        "preset": "medium", "ingester": {"persistence": {"size": "50Gi"}}})).returncode == 0
