/** How often and how long. Four attempts with at most a minute's wait each, if nothing is said. */
export interface Retry {
  attempts?: number;
  firstWaitMs?: number;
  /** A server that asks for more gets no further attempt: its answer is returned. */
  longestWaitMs?: number;
}

const SAFE_TO_REPEAT = new Set(["GET", "HEAD", "PUT", "DELETE"]);

/**
 * A `fetch` that comes again, as long as that can do no harm.
 *
 * - 429: always; the server did nothing.
 * - 503 and lost connections: for GET, HEAD, PUT and DELETE, and for telemetry that carries its own
 *   timestamps, because the same point again changes nothing. Any other POST may have been done
 *   before the answer was lost, so it is not sent again.
 */
export function retrying(retry: Retry = {}, inner: typeof fetch = globalThis.fetch): typeof fetch {
  const { attempts = 4, firstWaitMs = 500, longestWaitMs = 60_000 } = retry;
  return async (input, init) => {
    const request = new Request(input, init);
    for (let attempt = 0; attempt < attempts - 1; attempt++) {
      const highestMs = Math.min(firstWaitMs * 2 ** attempt, longestWaitMs);
      const backoffMs = highestMs * (0.5 + Math.random() / 2);
      let waitMs = backoffMs;
      try {
        // A request's body can be read once, so each attempt sends a copy.
        const response = await inner(request.clone());
        if (!(await isWorthRepeating(request, response))) return response;
        const asked = response.headers.get("Retry-After") ?? "";
        if (/^\d+$/.test(asked)) {
          if (Number(asked) * 1000 > longestWaitMs) return response;
          // Jitter on top, so that a fleet that was refused together does not come back together.
          waitMs = Number(asked) * 1000 + Math.random() * firstWaitMs;
        }
        await response.body?.cancel();
      } catch (error) {
        if (request.signal.aborted || !(await isRepeatable(request))) throw error;
      }
      await wait(waitMs, request.signal);
    }
    return inner(request);
  };
}

async function isWorthRepeating(request: Request, response: Response): Promise<boolean> {
  return response.status === 429 || (response.status === 503 && (await isRepeatable(request)));
}

/** Whether doing it twice is the same as doing it once. */
async function isRepeatable(request: Request): Promise<boolean> {
  if (SAFE_TO_REPEAT.has(request.method)) return true;
  const path = new URL(request.url).pathname;
  if (path.endsWith("/telemetry/batch")) return true; // each record has its timestamp
  if (!path.endsWith("/telemetry")) return false;
  try {
    const body: unknown = await request.clone().json();
    return typeof body === "object" && body !== null && "timestamp" in body && body.timestamp != null;
  } catch {
    return false;
  }
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    }
  });
}
