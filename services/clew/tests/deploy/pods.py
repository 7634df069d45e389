"""Plays the part of Kubernetes: starts the pods that rendered manifests describe, as processes of this
machine, each with an address of its own on loopback.

Arguments, settings, variables, ports and probes are the manifests'. What differs is only what Kubernetes
itself would provide: names in DNS become addresses, volumes become folders, and a container that listens
everywhere listens on its pod's address, since all pods share one network here.
"""

import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile

import chart
from cluster import wait_until
from harness import BINARY, clean_env, http

NAMESPACE = "tracing"


class Pod:
    """One pod: its container `clew` (or the prober's) as a process."""

    def __init__(self, nodes, owner, name, ip):
        self.nodes = nodes
        self.owner = owner
        self.name = name
        self.ip = ip
        template = owner["spec"]["template"] if owner["kind"] != "Pod" else owner
        self.spec = template["spec"]
        self.labels = template["metadata"]["labels"]
        (self.container,) = self.spec["containers"]
        self.role = self.labels["app.kubernetes.io/component"]
        self.dir = nodes.dir / name
        self.process = None
        self.log = nodes.dir / f"{name}.log"

    @property
    def ports(self):
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    @property
    def url(self):
        return f"http://{self.ip}:{self.ports['http']}"

    def _volumes(self):
        """Folders for the mounts: path in the container -> folder here."""
        kinds = {volume["name"]: volume for volume in self.spec.get("volumes", [])}
        folders = {}
        for mount in self.container.get("volumeMounts", []):
            volume = kinds.get(mount["name"], {})
            claim = volume.get("persistentVolumeClaim")
            folder = self.nodes.dir / "claims" / claim["claimName"] if claim else self.dir / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            if "configMap" in volume:
                found = chart.named(self.nodes.objects, "ConfigMap", volume["configMap"]["name"])
                for key, text in found["data"].items():
                    (folder / key).write_text(self._placed(text, folders))
            folders[mount["mountPath"]] = folder
        # Settings name folders that may be mounted after them.
        for path, folder in folders.items():
            for file in folder.glob("*.yaml") if path == "/etc/clew" else ():
                file.write_text(self._placed(file.read_text(), folders))
        return folders

    def _placed(self, text, folders):
        """The text with what Kubernetes provides filled in."""
        text = self.nodes.resolve(text)
        text = text.replace("0.0.0.0:", f"{self.ip}:").replace("127.0.0.1:", f"{self.ip}:")
        for path, folder in folders.items():
            text = re.sub(rf"(?<![\w/-]){re.escape(path)}(?![\w-])", str(folder), text)
        return text

    def _field(self, path):
        if found := re.fullmatch(r"metadata\.labels\['(.*)'\]", path):
            return self.labels.get(found[1], "")
        return {"metadata.name": self.name, "status.podIP": self.ip,
                "metadata.namespace": NAMESPACE}[path]

    def start(self):
        folders = self._volumes()
        env = {}
        for variable in self.container.get("env", []):
            if "value" in variable:
                text = variable["value"]
                for name, value in env.items():
                    text = text.replace(f"$({name})", value)
            else:
                text = self._field(variable["valueFrom"]["fieldRef"]["fieldPath"])
            env[variable["name"]] = text
        env = {name: self._placed(text, folders) for name, text in env.items()}
        arguments = [self._placed(each, folders) for each in self.container["args"]]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([BINARY, *arguments], stdout=log, stderr=log,
                                            env=clean_env(env), cwd=self.nodes.dir)
        return self

    def probe(self, kind):
        """Whether a probe is good, as the kubelet sees it."""
        get = self.container[kind]["httpGet"]
        url = f"http://{self.ip}:{self.ports[get['port']]}{get['path']}"
        with contextlib.suppress(OSError):
            return http("GET", url, timeout=5).status == 200
        return False

    def wait_for(self, probe):
        def good():
            if (code := self.process.poll()) is not None:
                raise RuntimeError(f"{self.name} ended with {code}: {self.tail()}")
            return self.probe(probe)
        wait_until(good, f"{self.name}: {probe}")

    def wait_ready(self):
        self.wait_for("readinessProbe")

    def wait(self, timeout=120):
        """The exit code of a pod that ends, and what it said."""
        code = self.process.wait(timeout)
        return code, self.log.read_text()

    def tail(self):
        return self.log.read_text()[-2000:] if self.log.exists() else ""

    def stop(self):
        """SIGTERM, and no more than the grace period; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(self.spec["terminationGracePeriodSeconds"])

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)


class Nodes:
    """The pods of a rendered release."""

    def __init__(self, objects, skip=()):
        self.objects = objects
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="clew-pods-"))
        # Of the 16 million addresses of loopback, one that hardly anybody else has.
        self.net = f"127.{random.randrange(10, 250)}.{random.randrange(1, 250)}"
        self.count = 0
        self.pods = []
        for each in chart.of_kind(objects, "StatefulSet", "Deployment"):
            role = each["metadata"]["labels"]["app.kubernetes.io/component"]
            if role in skip:
                print(f"skipped: this binary has no role {role}")
                continue
            for ordinal in range(each["spec"].get("replicas", 1)):
                self.add(each, f"{each['metadata']['name']}-{ordinal}")

    def add(self, owner, name):
        self.count += 1
        pod = Pod(self, owner, name, f"{self.net}.{self.count}")
        self.pods.append(pod)
        return pod

    def of(self, role):
        return [pod for pod in self.pods if pod.role == role]

    def resolve(self, text):
        """Names of pods and services become addresses."""
        suffix = f".{NAMESPACE}.svc.cluster.local"
        for service in chart.of_kind(self.objects, "Service"):
            name = service["metadata"]["name"]
            selector = service["spec"]["selector"].items()
            behind = [pod for pod in self.pods if all(pod.labels.get(k) == v for k, v in selector)]
            if service["spec"].get("clusterIP") == "None":
                for pod in behind:
                    text = text.replace(f"{pod.name}.{name}{suffix}", pod.ip)
            elif behind:
                text = re.sub(rf"(?<![\w.-]){re.escape(name + suffix)}", behind[0].ip, text)
                # A service leads to the port of the same name in the pod.
                for port in service["spec"]["ports"]:
                    assert behind[0].ports[port["targetPort"]] == port["port"]
        return text

    def start(self):
        for pod in self.pods:
            pod.start()
        for pod in self.pods:
            pod.wait_for("livenessProbe")
        for pod in self.pods:
            pod.wait_ready()
        return self

    def run(self, owner):
        """Runs a pod to its end, as a hook or a test: its exit code and what it said."""
        pod = self.add(owner, owner["metadata"]["name"])
        try:
            return pod.start().wait()
        finally:
            pod.kill()
            self.pods.remove(pod)

    def metrics(self):
        """All lines of all pods."""
        return "\n".join(http("GET", pod.url + "/metrics").text for pod in self.pods
                         if pod.process is not None and pod.process.poll() is None)

    def close(self):
        for pod in self.pods:
            pod.kill()
        if os.environ.get("KEEP_PODS"):
            print(f"kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def value(text, name, labels=""):
    """The sum of a metric over the lines whose labels contain `labels`."""
    total = 0.0
    for line in text.splitlines():
        head, _, number = line.rpartition(" ")
        if (head == name or head.startswith(name + "{")) and labels in head:
            total += float(number)
    return total


