import type { Client } from "./generated/client/index.js";
import { deviceHistory, submitTelemetry, submitTelemetryBatch } from "./generated/sdk.gen.js";
import type { BatchRecord, History, HistoryPoint, Measurements, Receipt } from "./generated/types.gen.js";
import { ok } from "./results.js";

export interface SubmitOptions {
  /** Now, if nothing is said. One is always sent, so that a retry doubles nothing. */
  timestamp?: Date;
  metadata?: { [key: string]: unknown };
}

/** Store the measurements of one moment; `rejected` in the receipt names what was not stored. */
export function submit(
  device: Client,
  data: Measurements,
  { timestamp = new Date(), metadata }: SubmitOptions = {},
): Promise<Receipt> {
  const body = { data, timestamp: timestamp.toISOString(), ...(metadata && { metadata }) };
  return ok(submitTelemetry({ client: device, body }));
}

/** Store up to 5,000 moments or 20,000 measurements at once. */
export function submitBatch(device: Client, records: BatchRecord[]): Promise<Receipt> {
  return ok(submitTelemetryBatch({ client: device, body: { records } }));
}

export interface HistoryOptions {
  /** RFC 3339, or relative: `-24h` (the default), `-15m`. */
  start?: Date | string;
  /** `now`, if nothing is said. */
  end?: Date | string;
  measurement?: string[];
  oldestFirst?: boolean;
  pageSize?: number;
}

/** Every point of the range, page by page; only one page is held in memory. */
export async function* history(
  client: Client,
  deviceId: number,
  options: HistoryOptions = {},
): AsyncGenerator<HistoryPoint, void, undefined> {
  const { start = "-24h", end = "now", measurement, oldestFirst = false, pageSize = 1000 } = options;
  const query = {
    start_time: queryTime(start),
    end_time: queryTime(end),
    order: oldestFirst ? ("asc" as const) : ("desc" as const),
    limit: pageSize,
    ...(measurement && { measurement }),
  };
  let cursor: string | null = null;
  do {
    const page: History = await ok(
      deviceHistory({
        client,
        path: { device_id: deviceId },
        query: { ...query, ...(cursor !== null && { cursor }) },
      }),
    );
    yield* page.data;
    cursor = page.next_cursor;
  } while (cursor !== null);
}

function queryTime(moment: Date | string): string {
  return typeof moment === "string" ? moment : moment.toISOString();
}
