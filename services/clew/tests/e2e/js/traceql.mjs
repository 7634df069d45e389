// Says of every query on standard input, a JSON string each, whether Grafana's editor grammar takes it.
import { readFileSync } from "node:fs";
import { parser } from "@grafana/lezer-traceql";

for (const line of readFileSync(0, "utf8").split("\n").filter(line => line !== "")) {
  let valid = true;
  parser.parse(JSON.parse(line)).iterate({ enter: node => { valid &&= !node.type.isError; } });
  console.log(valid ? "valid" : "malformed");
}
