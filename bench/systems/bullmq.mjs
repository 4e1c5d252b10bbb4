// BullMQ: `node bullmq.mjs PACKAGES NAME VERB`; bench/program.py has the verbs, bench/records.py the record.
import { spawnSync } from "node:child_process";
import { openSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";

const CONCURRENCY = 10;
const PART = 500;
const [packages, , verb] = process.argv.slice(2);
const now = () => Number(process.hrtime.bigint()) / 1e9; // the monotonic clock of Python

function prepare() {
  const options = ["--prefix", ".", "--no-audit", "--no-fund", "--prefer-offline"];
  const { error, status, stderr } = spawnSync("npm", ["install", ...options, ...packages.split(",")]);
  if (status !== 0) console.error(error?.message ?? `${stderr}`.split("\n").slice(0, 2).join("; "));
  process.exitCode = status ?? 1;
}

// The packages are in the current folder, and not beside this file.
function installed() {
  const load = createRequire(`${process.cwd()}/`);
  const connection = new (load("ioredis").Redis)(process.env.BENCH_URL, { maxRetriesPerRequest: null });
  return { ...load("bullmq"), connection };
}

function work() {
  const { Worker, connection } = installed();
  const file = openSync(process.env.BENCH_RECORDS, "a", 0o600);
  async function noop({ data: { number, sent, sleep } }) {
    if (sleep) await wait(sleep * 1000);
    const record = Buffer.alloc(24);
    record.writeBigInt64LE(BigInt(number), 0);
    record.writeDoubleLE(sent, 8);
    record.writeDoubleLE(now(), 16);
    writeSync(file, record);
  }
  const worker = new Worker("bench", noop, { connection, concurrency: CONCURRENCY });
  process.on("SIGTERM", () => worker.close().then(() => process.exit()));
}

async function send() {
  const { Queue, connection } = installed();
  const queue = new Queue("bench", { connection, defaultJobOptions: { removeOnComplete: true } });
  const job = (number, more) => ({ name: "noop", data: { number, sent: now(), ...more } });

  async function single({ first, count, pause, sleep }) {
    const start = now();
    for (let number = first; number < first + count; number++) {
      if (pause) await wait(Math.max(0, (start + (number - first) * pause - now()) * 1000));
      const { name, data } = job(number, sleep ? { sleep } : {});
      await queue.add(name, data);
    }
  }

  async function bulk({ first, count }) {
    for (let done = 0; done < count; done += PART) {
      const length = Math.min(PART, count - done);
      await queue.addBulk(Array.from({ length }, (_, index) => job(first + done + index)));
    }
  }

  await single({ first: 0, count: 1 });
  console.log(JSON.stringify({ ready: true, bulk: true }));
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    const [start, before] = [now(), process.cpuUsage()];
    await { single, bulk }[request.how](request);
    const { user, system } = process.cpuUsage(before);
    console.log(JSON.stringify({ seconds: now() - start, cpu: (user + system) / 1e6 }));
  }
  process.exit();
}

await { prepare, work, send }[verb]();
