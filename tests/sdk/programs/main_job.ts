// The main job with the TypeScript client; prints what it saw as JSON.
import {
  ApiError, connect, deviceAggregated, deviceLatest, history, login, me, ok, register,
  registerDevice, submit, submitBatch, type HistoryPoint,
} from "iotflow-client";

const baseUrl = process.env.IOTFLOW_URL!;
const strict = process.env.IOTFLOW_STRICT !== undefined;
const username = "typescript";
const password = "correct horse battery";
const start = new Date(Math.floor(Date.now() / 1000) * 1000 - 2 * 3_600_000);
const after = (seconds: number): Date => new Date(start.getTime() + seconds * 1000);

async function refusal(call: () => Promise<unknown>): Promise<ApiError> {
  try {
    await call();
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

const nobody = connect({ baseUrl });
await ok(register({ client: nobody, body: { username, password, email: "typescript@example.com" } }));
const session = await ok(login({ client: nobody, body: { username, password } }));

const user = connect({ baseUrl, token: () => session.access_token });
const made = await ok(registerDevice({ client: user, body: { name: "from typescript" } }));
const device = connect({ baseUrl, apiKey: made.api_key });

const receipt = await submit(
  device,
  { t: 23.5, open: true, note: "x", co2: { value: 612, unit: "ppm" } },
  { timestamp: start, metadata: { battery: "ok" } },
);
const batch = await submitBatch(
  device,
  Array.from({ length: 250 }, (_, n) => ({ timestamp: after(n + 1).toISOString(), data: { n: n + 1 } })),
);
const points: HistoryPoint[] = [];
for await (const point of history(user, made.device.id, { start, pageSize: 100, oldestFirst: true })) {
  points.push(point);
}
const path = { device_id: made.device.id };
const latest = await ok(deviceLatest({ client: user, path }));
const windows = await ok(
  deviceAggregated({ client: user, path, query: { field: "n", aggregation: ["sum"], window: "1d" } }),
);
const partly = await submit(device, { t: 1, "1st": 2 });
const refused = await refusal(() => submit(device, { "1st": 1 }));
const invalid = await refusal(() => ok(registerDevice({ client: user, body: { name: "" } })));

const report: { [key: string]: unknown } = {
  token: session.access_token,
  device_id: made.device.id,
  accepted: receipt.accepted,
  batch: batch.accepted,
  points: points.map((p) => [p.timestamp, p.measurement_name, p.value, p.unit]),
  latest: latest.data,
  sum: windows.data.map((window) => ("sum" in window ? window.sum : null)),
  partly: [partly.accepted, partly.rejected.map((each) => each.measurement)],
  refused: {
    status: refused.status,
    code: refused.code,
    rejected: refused.rejected.map((each) => [each.measurement, each.code]),
  },
  invalid: { status: invalid.status, fields: invalid.errors.map((each) => each.field) },
  async: (await ok(me({ client: user }))).username,
};

if (strict) {
  const hasty = connect({ baseUrl, apiKey: made.api_key, retry: { attempts: 1 } });
  let stored = 0;
  for (let n = 0; n < 8; n++) stored += (await submit(device, { n }, { timestamp: after(-n) })).accepted;
  report.patient = stored;
  const limited = await refusal(async () => {
    for (let n = 0; n < 50; n++) await submit(hasty, { n }, { timestamp: after(-60 * (n + 1)) });
  });
  report.hasty = { status: limited.status, code: limited.code };
}
console.log(JSON.stringify(report));
