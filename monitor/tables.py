"""The tables: one row a run, and below it what the pod reported, raw and sorted.

`training_jobs`, `training_metrics`, `training_checkpoints` and `training_predictions` are for
whoever reads the store with SQL; every value in them follows from `training_events` and `launches`.
Times are seconds since 1970. JSON columns hold strict JSON (see podproof.runtime.events).
"""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData()

TRAINING_JOBS = Table(
    "training_jobs",
    METADATA,
    Column("id", String(200), primary_key=True),  # the run id
    Column("user_id", String(200)),
    Column("name", Text),
    Column("status", String(20), nullable=False),
    Column("progress", Float),  # 0 to 1
    Column("current_step", Integer),
    Column("current_epoch", Float),
    Column("total_steps", Integer),
    # best_checkpoint_score, best_checkpoint_step, best_checkpoint_epoch, checkpoint_scores_history
    Column("metrics", JSON),
    Column("delivered_path", Text),
    Column("error", Text),
    Column("created_unix_s", Float),
    Column("started_unix_s", Float),
    Column("ended_unix_s", Float),
    Column("updated_unix_s", Float),
)

TRAINING_METRICS = Table(
    "training_metrics",
    METADATA,
    Column("job_id", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("kind", String(20), nullable=False),  # train_log or evaluation
    Column("epoch", Float),
    Column("loss", Float),
    Column("eval_loss", Float),
    Column("score", Float),
    Column("body", JSON, nullable=False),
    UniqueConstraint("job_id", "step", "kind"),
)

TRAINING_CHECKPOINTS = Table(
    "training_checkpoints",
    METADATA,
    Column("job_id", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("path", Text),
    Column("body", JSON, nullable=False),
    UniqueConstraint("job_id", "step"),
)

TRAINING_PREDICTIONS = Table(
    "training_predictions",
    METADATA,
    Column("job_id", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("sample", Integer, nullable=False),  # which of the prompts, from 0
    Column("prompt", Text),
    Column("expected", Text),
    Column("answer", Text),
    Column("body", JSON, nullable=False),
    UniqueConstraint("job_id", "step", "sample"),
)

TRAINING_EVENTS = Table(
    "training_events",
    METADATA,
    Column("event_id", String(250), primary_key=True),
    Column("job_id", String(200), nullable=False),
    Column("boot", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("time_unix_s", Float, nullable=False),
    Column("step", Integer),
    Column("epoch", Float),
    Column("body", JSON, nullable=False),
    Index("training_events_in_order", "job_id", "boot", "seq"),
    Index("training_events_by_step", "job_id", "kind", "step"),
)

LAUNCHES = Table(
    "launches",
    METADATA,
    Column("run_id", String(200), primary_key=True),
    Column("name", Text, nullable=False),
    Column("provider", String(20), nullable=False),
    Column("status", String(20), nullable=False),
    Column("pod_id", String(200)),
    Column("script_sha256", String(64), nullable=False),
    Column("config_sha256", String(64), nullable=False),
    Column("intended_unix_s", Float, nullable=False),
    Column("ended_unix_s", Float),
    Column("cost_usd_per_h", Float),
    Column("log_path", Text),
    Column("output_path", Text),
    Column("reason", Text),
    Column("stop_requested", Boolean, nullable=False),
)

# What was estimated of a run when it was launched: the details of its memory gate.
ESTIMATES = Table(
    "estimates",
    METADATA,
    Column("run_id", String(200), primary_key=True),
    Column("body", JSON, nullable=False),
)

APPROVALS = Table(
    "approvals",
    METADATA,
    Column("approval_id", Integer, primary_key=True),  # counts up
    Column("name", Text, nullable=False),
    Column("script_sha256", String(64), nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("approved_unix_s", Float, nullable=False),
    Column("changes", JSON, nullable=False),  # what was different, as a list of text
)

REPORT_TOKENS = Table(
    "report_tokens",
    METADATA,
    Column("job_id", String(200), primary_key=True),
    Column("token_sha256", String(64), nullable=False),
)
