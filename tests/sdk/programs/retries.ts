// What the TypeScript client does about 503: prints what came of a submission and a registration.
import { ApiError, connect, ok, registerDevice, submit } from "iotflow-client";

const baseUrl = process.env.IOTFLOW_URL!;
const retry = { firstWaitMs: 10 };

console.log("stored", (await submit(connect({ baseUrl, apiKey: "key", retry }), { n: 1 })).accepted);
try {
  await ok(registerDevice({ client: connect({ baseUrl, token: "token", retry }), body: { name: "once" } }));
} catch (error) {
  if (!(error instanceof ApiError)) throw error;
  console.log("refused", error.status);
}
