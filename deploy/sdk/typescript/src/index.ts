/** A client of IoTFlow: `connect` makes one, every call of the API is a function. */
export * from "./generated/sdk.gen.js";
export type * from "./generated/types.gen.js";
export type { Client } from "./generated/client/index.js";
export { connect, type ConnectOptions } from "./connecting.js";
export { ApiError, ok } from "./results.js";
export { retrying, type Retry } from "./retrying.js";
export {
  history,
  submit,
  submitBatch,
  type HistoryOptions,
  type SubmitOptions,
} from "./telemetry.js";
