import { createClient, createConfig, type Client } from "./generated/client/index.js";
import { retrying, type Retry } from "./retrying.js";

export interface ConnectOptions {
  /** For example `https://iot.example.com`. */
  baseUrl: string;
  /** A user's: an access token, or a function that gives the current one, or a personal token. */
  token?: string | (() => string | Promise<string>);
  /** A device's. Give this or `token`, or neither to register and to sign in. */
  apiKey?: string;
  retry?: Retry;
  fetch?: typeof fetch;
}

/** A client to hand to the calls: `getDevice({ client, path: { device_id: 42 } })`. */
export function connect(options: ConnectOptions): Client {
  const { baseUrl, token, apiKey } = options;
  if (token !== undefined && apiKey !== undefined) {
    throw new TypeError("give a token or an apiKey, not both");
  }
  return createClient(
    createConfig({
      baseUrl: baseUrl.replace(/\/+$/, ""),
      fetch: retrying(options.retry, options.fetch),
      auth: async (scheme) => {
        if (scheme.scheme !== "bearer") return apiKey;
        return typeof token === "function" ? token() : token;
      },
    }),
  );
}
