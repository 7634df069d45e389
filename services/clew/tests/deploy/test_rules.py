"""Rules and dashboards: Prometheus accepts them, each alert fires when it should and not when it should
not, leads to a runbook, and asks for metrics that exist."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

import rules_cases
from chart import CHART, ROOT

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: apt-get install prometheus)")

FILES = [CHART / "rules" / "recording.yaml", CHART / "rules" / "alerts.yaml"]
RULES = [rule for path in FILES for group in yaml.safe_load(path.read_text())["groups"]
         for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))


@needs_promtool
def test_prometheus_accepts_the_rules():
    done = subprocess.run([PROMTOOL, "check", "rules", *FILES], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case():
    assert set(rules_cases.CASES) == set(ALERTS)


def unit_tests(name):
    """promtool's tests of one alert: fires with one set of series, not with another."""
    fires, quiet, minutes = rules_cases.CASES[name]
    made = []
    for series, at, expected in ((fires, minutes, True), (quiet, minutes, False),
                                 *rules_cases.MORE.get(name, ())):
        made.append(unit_test(
            series, at, f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) > 0 or vector(0)',
            1 if expected else 0))
    return made


def unit_test(series, minutes, expr, value):
    return {"interval": "1m",
            "input_series": [{"series": key, "values": values} for key, values in series.items()],
            "promql_expr_test": [{"expr": expr, "eval_time": f"{minutes}m",
                                  "exp_samples": [{"labels": "{}", "value": value}]}]}


def needed(exprs):
    """The recording rules that expressions need: all rules over days take long."""
    found = [rule for rule in RULES if "record" in rule
             and any(re.search(rf"{rule['record']}\b", expr) for expr in exprs)]
    more = [rule["expr"] for rule in found]
    return found if set(more) <= set(exprs) else needed([*exprs, *more])


def promtool(tmp_path, rules, tests):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({
        "rule_files": [str(tmp_path / "rules.yaml")], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, text=True,
                          timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("name", rules_cases.CASES)
def test_an_alert_fires_when_it_should_and_only_then(name, tmp_path):
    alert = ALERTS[name]
    promtool(tmp_path, [*needed([alert["expr"]]), alert], unit_tests(name))


@needs_promtool
def test_an_outage_counts_as_long_as_it_lasts(tmp_path):
    """Rounds that cannot write make one check instead of five, and take longer."""
    def checks(check, outcome, values):
        return {rules_cases.s("clew_probe_checks_total", check=check, outcome=outcome): values}

    good, bad = "0+4x30 120x30", "0x30 2+2x30"
    series = {**checks("write", "ok", good), **checks("write", "error", bad)}
    for check in ("trace", "search", "tags", "older"):
        series |= {**checks(check, "ok", good), **checks(check, "error", "0x60")}
    ratio = "sum(clew:probe_errors:ratio_rate1h)"
    promtool(tmp_path, needed([ratio]), [
        unit_test(series, 60, f"{ratio} > bool 0.45", 1), unit_test(series, 60, f"{ratio} < bool 0.55", 1)])


def test_every_alert_says_what_it_is_and_leads_to_a_runbook():
    runbooks = (ROOT / "docs" / "runbooks.md").read_text()
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", runbooks, re.DOTALL | re.MULTILINE))
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in ("page", "ticket"), name
        assert alert["annotations"]["summary"].startswith("Clew"), name
        address, anchor = alert["annotations"]["runbook_url"].split("#")
        assert address.endswith("docs/runbooks.md")
        assert anchor == name.lower() and name in sections, f"{name} has no section"
        for word in ("**Means.**", "**Check.**", "**Do.**"):
            assert word in sections[name], f"{name} lacks {word}"
    assert not set(sections) - set(ALERTS), "sections of alerts that are gone"


def test_objectives_are_written_down():
    slo = (ROOT / "docs" / "slo.md").read_text()
    for rule in RULES:
        if found := re.fullmatch(r"clew:(\w+):ratio_rate1h", rule.get("record", "")):
            assert found[1] in slo, found[1]


def test_dashboards_are_readable():
    for path in DASHBOARDS:
        made = json.loads(path.read_text())
        assert made["uid"] and made["title"]
        rows = {}
        for panel in made["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24, panel["title"]
            if panel["type"] == "row":
                continue
            rows.setdefault(place["y"], []).append(panel)
            for target in panel["targets"]:
                assert not re.search(r"avg.*quantile|avg.*_bucket", target["expr"]), panel["title"]
                if "histogram_quantile" in target["expr"]:
                    assert re.search(r"sum by \(le", target["expr"]), panel["title"]
        assert all(len(row) <= 7 for row in rows.values())


def expressions():
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']}", target["expr"]


def asked_for():
    """Names of metrics in rules and dashboards, with where they are asked for."""
    names = {}
    for where, expr in expressions():
        for name in re.findall(r"\b((?:clew|process)_[a-z0-9_]+)", expr):
            names.setdefault(re.sub(r"_(bucket|count|sum)$", "", name), where)
    return names


@needs_promtool
def test_prometheus_accepts_every_panel(tmp_path):
    variables = {"$__rate_interval": "5m", "$cluster": ".*", "$namespace": ".*", "$tenant": ".*"}
    rules = []
    for number, (_, expr) in enumerate(expressions()):
        for name, text in variables.items():
            expr = expr.replace(name, text)
        rules.append({"record": f"panel:{number}", "expr": expr})
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", "--lint=none", path], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Their names do not end as those of counters do.
COUNTERS = re.compile(r"_(total|bucket|count|sum)$|^clew:|^ALERTS$")


def test_rates_are_of_counters():
    for where, expr in expressions():
        for name in re.findall(r"\b(?:rate|increase)\((\w+)", expr):
            assert COUNTERS.search(name), f"{where}: the rate of {name}"


def test_recorded_series_that_are_asked_for_are_recorded():
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for where, expr in expressions():
        for name in re.findall(r"\b(clew:[a-z0-9_]+:[a-z0-9_]+)", expr):
            assert name in recorded, f"{where} asks for {name}"
