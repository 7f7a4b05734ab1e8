"""What must fit each other over the steps of a run, and what a pod needs to be let do its work."""

from typing import Any

from podproof.compiler.schema import EvalStrategy

Values = dict[str, Any]

EXTRA = "trainer.extra"
PLATEAU = {"trainer.lr_scheduler_type": "reduce_lr_on_plateau"}
MIN_LR = {"trainer.lr_scheduler_type": "cosine_with_min_lr"}
GALORE = {"trainer.optim": "galore_adamw", "pod.requirements": {"galore_torch": "1.0"}}
LICENSED = {"model.name_or_path": "meta-llama/Llama-3.1-8B"}

# (rule, config, what is changed in it, the key that must be refused)
REFUSED_SCHEDULE: list[tuple[str, str, Values, str]] = [
    ("warmup", "sft", {"trainer.warmup_steps": 1.5}, "trainer.warmup_steps"),
    ("warmup", "sft", {"trainer.warmup_steps": 0.9}, "trainer.warmup_steps"),
    (
        "warmup",
        "sft",
        {"trainer.warmup_steps": 96, "trainer.max_steps": 96},
        "trainer.warmup_steps",
    ),
    (
        "first_evaluation",
        "sft",
        {"trainer.max_steps": 48, EXTRA: {"eval_delay": 48}},
        "trainer.extra.eval_delay",
    ),
    (
        "first_evaluation",
        "sft",
        {
            "trainer.eval_strategy": EvalStrategy.EPOCH,
            "trainer.num_train_epochs": 2.0,
            "trainer.max_steps": -1,
            EXTRA: {"eval_delay": 2},
        },
        "trainer.extra.eval_delay",
    ),
    ("learning_rate", "sft", {"trainer.learning_rate": 0.3}, "trainer.learning_rate"),
    ("adam", "sft", {"trainer.adam_beta1": 0.999, "trainer.adam_beta2": 0.9}, "trainer.adam_beta2"),
    ("adam", "sft", {"trainer.max_grad_norm": 1e-9}, "trainer.max_grad_norm"),
    ("scheduler", "sft", MIN_LR, "trainer.lr_scheduler_type"),
    ("scheduler", "sft", {EXTRA: {"lr_scheduler_kwargs": "x"}}, f"{EXTRA}.lr_scheduler_kwargs"),
    (
        "scheduler",
        "sft",
        {"trainer.lr_scheduler_type": "cosine", EXTRA: {"lr_scheduler_kwargs": {"min_lr": 1e-6}}},
        f"{EXTRA}.lr_scheduler_kwargs.min_lr",
    ),
    ("optimizer_packages", "sft", {"trainer.optim": "lomo"}, "trainer.optim"),
    ("optimizer_packages", "sft", {"trainer.optim": "adamw_torch_xla"}, "trainer.optim"),
    ("optimizer_packages", "sft", GALORE, "trainer.optim"),
    ("optimizer_arguments", "sft", {EXTRA: {"optim_args": "rank:64"}}, f"{EXTRA}.optim_args"),
    ("optimizer_arguments", "sft", {EXTRA: {"optim_args": "rank=64,"}}, f"{EXTRA}.optim_args"),
    ("optimizer_arguments", "sft", {EXTRA: {"optim_args": {"rank": 64}}}, f"{EXTRA}.optim_args"),
    (
        "switches",
        "rented_sft",
        {"pod.env": {"CUDA_VISIBLE_DEVICES": "0"}},
        "pod.env.CUDA_VISIBLE_DEVICES",
    ),
    ("switches", "rented_sft", {"pod.env": {"HF_HUB_OFFLINE": "1"}}, "pod.env.HF_HUB_OFFLINE"),
    ("switches", "rented_sft", {"pod.env": {"UV_OFFLINE": "true"}}, "pod.env.UV_OFFLINE"),
    ("tokens", "rented_sft", {**LICENSED, "pod.secrets": {}}, "pod.secrets"),
    ("tokens", "rented_sft", {"report.integrations": ("wandb",)}, "report.integrations"),
]

ALLOWED_SCHEDULE: list[tuple[str, str, Values]] = [
    ("warmup", "sft", {"trainer.warmup_steps": 0.5}),
    ("warmup", "sft", {"trainer.warmup_steps": 95, "trainer.max_steps": 96}),
    ("warmup", "sft", {"trainer.warmup_steps": 10, "trainer.max_steps": 6}),
    ("warmup", "sft", {"trainer.warmup_steps": 1000, "trainer.max_steps": -1}),
    ("first_evaluation", "sft", {"trainer.max_steps": 48, EXTRA: {"eval_delay": 8}}),
    ("first_evaluation", "sft", {"trainer.max_steps": -1, EXTRA: {"eval_delay": 1000}}),
    ("learning_rate", "sft", {"trainer.learning_rate": 0.5, "trainer.optim": "sgd"}),
    ("learning_rate", "sft", {"trainer.learning_rate": 0.2}),
    ("adam", "sft", {"trainer.adam_beta1": 0.95, "trainer.adam_beta2": 0.95}),
    ("adam", "sft", {"trainer.max_grad_norm": 0.0}),
    ("scheduler", "sft", {**PLATEAU, EXTRA: {"lr_scheduler_kwargs": {"patience": 3}}}),
    ("scheduler", "sft", {**MIN_LR, EXTRA: {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}}),
    ("optimizer_packages", "sft", {"trainer.optim": "paged_adamw_8bit"}),
    ("optimizer_packages", "sft", {**GALORE, EXTRA: {"optim_target_modules": "all-linear"}}),
    ("optimizer_arguments", "sft", {EXTRA: {"optim_args": "rank=64, scale=0.1"}}),
    ("optimizer_arguments", "sft", {EXTRA: {"optim_args": None}}),
    ("switches", "sft", {"pod.env": {"CUDA_VISIBLE_DEVICES": ""}}),
    ("switches", "rented_sft", {"pod.env": {"HF_HUB_OFFLINE": "0", "UV_OFFLINE": "False"}}),
    ("tokens", "sft", LICENSED),
    ("tokens", "rented_sft", {**LICENSED, "pod.secrets": {"HF_TOKEN": "hf"}}),
    (
        "tokens",
        "rented_sft",
        {"report.integrations": ("wandb",), "pod.env": {"WANDB_MODE": "offline"}},
    ),
]
