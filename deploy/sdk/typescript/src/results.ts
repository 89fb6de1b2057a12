import type {
  FieldProblem,
  NothingAccepted,
  Problem,
  Rejected,
  TokenRefusal,
} from "./generated/types.gen.js";

type AnyProblem = Problem | NothingAccepted | TokenRefusal;

/** The service said no. `code` is stable, `detail` is for people. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly requestId: string;
  /** The fields at fault, if it is fields. */
  readonly errors: FieldProblem[];
  /** The measurements at fault, where none of a submission was stored. */
  readonly rejected: Rejected[];

  constructor(readonly problem: AnyProblem) {
    super(`${problem.status} ${problem.code}: ${problem.detail}`);
    this.status = problem.status;
    this.code = problem.code;
    this.detail = problem.detail;
    this.requestId = problem.request_id;
    this.errors = problem.errors ?? [];
    this.rejected = ("rejected" in problem ? problem.rejected : undefined) ?? [];
  }
}

interface Answer<T> {
  data?: T;
  error?: unknown;
  response?: Response;
}

/**
 * What a call gave back, if it went well: `const me = await ok(me({ client }))`.
 *
 * @throws {ApiError} the service said no
 * @throws {Error} there was no answer, or none of this service
 */
export async function ok<T>(call: Promise<Answer<T>>): Promise<NonNullable<T>> {
  const { data, error, response } = await call;
  if (isProblem(error)) throw new ApiError(error);
  if (error instanceof Error) throw error;
  if (error !== undefined || data === undefined || data === null) {
    throw new Error(`an answer that is not IoTFlow's (status ${response?.status ?? "unknown"})`);
  }
  return data;
}

function isProblem(error: unknown): error is AnyProblem {
  return typeof error === "object" && error !== null && "code" in error && "status" in error;
}
