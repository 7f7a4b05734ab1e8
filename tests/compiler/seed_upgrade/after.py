"""The same training script after its upgrade: every evaluation gets a score of several metrics.

Made up for the tests, after a description of such a script; it is compared and never run.
"""

import json
import logging
import math
import os
import time

from datasets import load_dataset
from supabase import create_client
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

JOB_ID = os.environ.get("JOB_ID")
SUPABASE_URL = os.environ.get("SUPABASE_URL")
SUPABASE_KEY = os.environ.get("SUPABASE_SERVICE_KEY")
MODEL_NAME = os.environ.get("MODEL_NAME", "Qwen/Qwen3-0.6B")
DATASET_PATH = os.environ.get("DATASET_PATH", "dataset.jsonl")
EVAL_SHARE = 0.2

# The shares of a checkpoint's score. Lower is better, as with a loss.
EVAL_LOSS_WEIGHT = 0.5
GAP_WEIGHT = 0.3
PERPLEXITY_WEIGHT = 0.1
IMPROVEMENT_BONUS = 0.1

# An eval loss below this is taken for this when the gap is divided by it.
SMALLEST_LOSS = 0.001
# A perplexity of this and above counts as one.
LARGEST_PERPLEXITY = 20.0
# math.exp of more than this overflows.
LARGEST_EXPONENT = 700.0

# Of fewer losses no trend is told, and less than this is no difference.
FEWEST_LOSSES = 10
SMALLEST_DIFFERENCE = 0.01

logger = logging.getLogger("checkpoint_scorer")

IS_CLOUD = bool(JOB_ID and SUPABASE_URL and SUPABASE_KEY)
database = create_client(SUPABASE_URL, SUPABASE_KEY) if IS_CLOUD else None


def overfitting_gap(train_loss, eval_loss):
    """Return how far train and eval loss lie apart, in units of the eval loss.

    Without a train loss nothing is known of a gap, and it counts as none.
    """
    if train_loss is None:
        return 0.0
    return abs(train_loss - eval_loss) / max(eval_loss, SMALLEST_LOSS)


def perplexity_share(eval_loss):
    """Return the perplexity as a share of the largest that counts, from 0 to 1."""
    if eval_loss > LARGEST_EXPONENT:
        return 1.0
    return min(math.exp(eval_loss) / LARGEST_PERPLEXITY, 1.0)


def improvement(epochs_without_improvement):
    """Return 1 while the eval loss falls from one evaluation to the next, else 0."""
    return 1.0 if epochs_without_improvement == 0 else 0.0


def loss_trend(recent_losses):
    """Return where the train loss is going: the older half of the last losses against the newer.

    A difference of less than a hundredth is none.
    """
    losses = list(recent_losses)
    if len(losses) < FEWEST_LOSSES:
        return "insufficient_data"
    middle = len(losses) // 2
    older = sum(losses[:middle]) / middle
    newer = sum(losses[middle:]) / (len(losses) - middle)
    if older - newer > SMALLEST_DIFFERENCE:
        return "improving"
    if newer - older > SMALLEST_DIFFERENCE:
        return "degrading"
    return "stable"


def calculate_checkpoint_score(eval_loss, train_loss, epochs_without_improvement):
    """Return the score of a checkpoint; lower is better, infinity without an eval loss.

    It is a weighted sum of four things:

    1. the eval loss itself, which counts most;
    2. the gap between train and eval loss, a sign of overfitting;
    3. the perplexity, bounded, so that one bad evaluation does not drown the others;
    4. a bonus while the eval loss still falls.

    Every part is logged, so that a choice can be understood afterwards.
    """
    if eval_loss is None:
        logger.warning("an evaluation without eval_loss cannot be scored")
        return float("inf")
    gap = overfitting_gap(train_loss, eval_loss)
    perplexity = perplexity_share(eval_loss)
    bonus = improvement(epochs_without_improvement)
    score = (
        EVAL_LOSS_WEIGHT * eval_loss
        + GAP_WEIGHT * gap
        + PERPLEXITY_WEIGHT * perplexity
        - IMPROVEMENT_BONUS * bonus
    )
    logger.info(
        "score %.6f: eval loss %.4f, gap %.4f, perplexity %.4f, bonus %.1f",
        score,
        eval_loss,
        gap,
        perplexity,
        bonus,
    )
    return score


class TrainingMetricsCallback(TrainerCallback):
    """Tells the database how the training goes, and which checkpoint is the best so far."""

    def __init__(self, total_samples=None):
        self.start_time = time.time()
        self.last_log_time = time.time()
        self.total_samples = total_samples

        # The best evaluation so far, by score.
        self.best_eval_loss = float("inf")
        self.best_epoch = 0
        self.best_step = 0
        self.previous_eval_loss = None
        self.epochs_without_improvement = 1

        # The last train losses: an evaluation's own log has none.
        from collections import deque

        self.recent_losses = deque(maxlen=100)

        # Every score, for whoever looks at the job.
        self.checkpoint_scores_history = []

    def on_train_begin(self, args, state, control, **kwargs):
        """Mark the job as running."""
        if not IS_CLOUD:
            return
        job = {"status": "running", "progress": 0.0}
        database.table("training_jobs").update(job).eq("id", JOB_ID).execute()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Send what the trainer logged."""
        if not IS_CLOUD or not logs:
            return

        # Keep the train loss: the next evaluation is scored with it.
        train_loss = logs.get("loss")
        if train_loss is None:
            train_loss = logs.get("train_loss")
        if train_loss is not None:
            self.recent_losses.append(train_loss)

        self.last_log_time = time.time()
        elapsed = self.last_log_time - self.start_time
        progress = state.global_step / max(1, state.max_steps)
        metrics = {
            "loss": logs.get("loss"),
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "epoch": logs.get("epoch"),
            "step": state.global_step,
            "elapsed_seconds": elapsed,
            "remaining_seconds": elapsed / max(progress, 1e-6) - elapsed,
        }
        job = {"progress": progress, "metrics": metrics}
        try:
            database.table("training_jobs").update(job).eq("id", JOB_ID).execute()
        except Exception as error:
            print(f"metrics were not sent: {error}")

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Send the metrics of an evaluation apart from those of training."""
        if not IS_CLOUD or not metrics:
            return
        current_epoch = int(state.epoch or 0)
        evaluation = {
            "eval_loss": metrics.get("eval_loss"),
            "eval_runtime": metrics.get("eval_runtime"),
            "epoch": current_epoch,
            "step": state.global_step,
        }
        try:
            job = {"metrics": evaluation}
            database.table("training_jobs").update(job).eq("id", JOB_ID).execute()
        except Exception as error:
            print(f"evaluation was not sent: {error}")

        # Score the checkpoint of this evaluation.
        eval_loss = metrics.get("eval_loss")
        if eval_loss is not None:
            train_loss_for_scoring = None
            if len(self.recent_losses) > 0:
                train_loss_for_scoring = self.recent_losses[-1]
            self._update_best_model(
                eval_loss,
                current_epoch,
                state.global_step,
                train_loss_for_scoring,
            )

    def _update_best_model(self, eval_loss, current_epoch, current_step, train_loss=None):
        """Score an evaluation, keep it if it is the best so far, and tell the database.

        The best so far is scored again without its train loss, since that was not kept. The trainer
        goes on choosing by its own metric; what is found here is told, and decides nothing.
        """
        current_score = calculate_checkpoint_score(
            eval_loss,
            train_loss,
            self.epochs_without_improvement,
        )
        best_score = float("inf")
        if math.isfinite(self.best_eval_loss):
            best_score = calculate_checkpoint_score(self.best_eval_loss, None, 1)

        entry = {
            "step": current_step,
            "epoch": current_epoch,
            "score": current_score,
            "eval_loss": eval_loss,
            "train_loss": train_loss,
            "trend": loss_trend(self.recent_losses),
        }
        self.checkpoint_scores_history.append(entry)

        if current_score < best_score:
            logger.info(
                "new best checkpoint: step %d, epoch %d, score %.6f",
                current_step,
                current_epoch,
                current_score,
            )
            self.best_eval_loss = eval_loss
            self.best_epoch = current_epoch
            self.best_step = current_step
            self._report_best(current_score)

        # The bonus of the next evaluation depends on whether this one improved.
        if self.previous_eval_loss is not None:
            if eval_loss < self.previous_eval_loss:
                self.epochs_without_improvement = 0
            else:
                self.epochs_without_improvement += 1
        self.previous_eval_loss = eval_loss

    def _report_best(self, score):
        """Write the best checkpoint into the job's metrics; training goes on when it fails."""
        best = {
            "best_checkpoint_score": score,
            "best_checkpoint_step": self.best_step,
            "best_checkpoint_epoch": self.best_epoch,
            "checkpoint_scores_history": list(self.checkpoint_scores_history),
        }
        try:
            job = {"metrics": best}
            database.table("training_jobs").update(job).eq("id", JOB_ID).execute()
        except Exception as error:
            logger.warning("the best checkpoint was not sent: %s", error)

    def on_train_end(self, args, state, control, **kwargs):
        """Mark the job as completed."""
        if not IS_CLOUD:
            return
        job = {"status": "completed", "progress": 1.0}
        database.table("training_jobs").update(job).eq("id", JOB_ID).execute()


def read_rows(path):
    """Return training and evaluation rows."""
    rows = load_dataset("json", data_files=path, split="train")
    parts = rows.train_test_split(test_size=EVAL_SHARE, seed=42)
    return parts["train"], parts["test"]


def training_arguments(eval_strategy):
    """Return what the trainer is told."""
    return SFTConfig(
        output_dir="/workspace/output",
        num_train_epochs=3,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=8,
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        bf16=True,
        logging_steps=10,
        eval_strategy=eval_strategy,
        eval_steps=100,
        save_steps=100,
        load_best_model_at_end=eval_strategy != "no",
        metric_for_best_model="loss",
    )


def main():
    """Train, and save the model where the pod keeps it."""
    train_rows, eval_rows = read_rows(DATASET_PATH)
    metrics_callback = TrainingMetricsCallback(total_samples=len(train_rows))
    callbacks = [metrics_callback] if IS_CLOUD else []
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(MODEL_NAME),
        processing_class=AutoTokenizer.from_pretrained(MODEL_NAME),
        args=training_arguments("steps"),
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        callbacks=callbacks,
    )
    result = trainer.train()
    trainer.save_model("/workspace/output/final")
    print(json.dumps(result.metrics))


if __name__ == "__main__":
    main()
