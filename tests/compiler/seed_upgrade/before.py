"""A training script for a rented pod, before its upgrade: reports losses, chooses by eval loss.

Made up for the tests, after a description of such a script; it is compared and never run.
"""

import json
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

IS_CLOUD = bool(JOB_ID and SUPABASE_URL and SUPABASE_KEY)
database = create_client(SUPABASE_URL, SUPABASE_KEY) if IS_CLOUD else None


class TrainingMetricsCallback(TrainerCallback):
    """Tells the database how the training goes."""

    def __init__(self, total_samples=None):
        self.start_time = time.time()
        self.last_log_time = time.time()
        self.total_samples = total_samples

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
