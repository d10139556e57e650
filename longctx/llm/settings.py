"""How a client asks: limits, retries, budget. None of it can change what is answered."""

from pydantic import BaseModel, ConfigDict, Field


class ClientSettings(BaseModel):
    """Settings of the stack above a backend; what holds for all actors is divided by `actors`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    in_flight: int = Field(32, ge=1, description="requests at the server at once, at most")
    attempts: int = Field(6, ge=1, description="attempts for one request, the first included")
    request_limit_s: float = Field(
        1200.0, gt=0, description="seconds after which a request is not tried again"
    )
    backoff_base_s: float = Field(1.0, ge=0, description="longest wait after the first failure")
    backoff_cap_s: float = Field(60.0, ge=0, description="longest wait after any failure")
    breaker_failures: int = Field(30, ge=1, description="failures in a row that end the job")
    breaker_s: float = Field(300.0, gt=0, description="seconds of failures alone that end it")
    requests_per_minute: float | None = Field(None, gt=0, description="over all actors")
    tokens_per_minute: float | None = Field(None, gt=0, description="over all actors")
    max_tokens_total: int | None = Field(None, ge=1, description="tokens to spend, all actors")
    max_usd: float | None = Field(None, gt=0, description="dollars to spend, all actors")
    actors: int = Field(1, ge=1, description="clients that share these limits")
    store_truncated: bool = Field(False, description="keep answers that were cut off or filtered")
    reuse_finished: bool = Field(
        False, description="take a finished answer that was stored under another max_tokens"
    )
