"""What may stand in a pod's environment, and where a pod may report to."""

from typing import Any

from podproof.runtime.plan import Sink

Values = dict[str, Any]

# (rule, config, what is changed in it, the key that must be refused)
REFUSED_ENVIRONMENT: list[tuple[str, str, Values, str]] = [
    *(
        ("address", "rented_sft", {"report.sink": Sink.HTTP, "report.url": url}, "report.url")
        for url in (
            "http://localhost:8080",
            "https://192.168.1.5",
            "https://[::1]/x",
            "https://nas.local",
            "https://c.example.org/x?token=0123456789abcdef",
        )
    ),
    ("variables", "sft", {"pod.env": {"A-B": "x"}}, "pod.env.A-B"),
    ("variables", "sft", {"pod.env": {"PODPROOF_DATA": "x"}}, "pod.env.PODPROOF_DATA"),
    ("variables", "sft", {"pod.env": {"RUNPOD_API_KEY": "x"}}, "pod.env.RUNPOD_API_KEY"),
    ("variables", "sft", {"pod.env": {"A": 'say "x"'}}, "pod.env.A"),
    ("variables", "sft", {"pod.env": {"A": "\ud800"}}, "pod.env.A"),
    ("variables", "sft", {"pod.env": {"A": "x"}, "pod.secrets": {"A": "x"}}, "pod.secrets.A"),
    ("credentials", "sft", {"pod.secrets": {"A": "hf_token value"}}, "pod.secrets.A"),
    ("address", "sft", {"report.sink": Sink.HTTP}, "report.url"),
    ("address", "sft", {"report.sink": Sink.HTTP, "report.url": "ftp://a"}, "report.url"),
    ("address", "sft", {"report.sink": Sink.HTTP, "report.url": "http://["}, "report.url"),
    ("address", "sft", {"report.sink": Sink.HTTP, "report.url": "http://a:b"}, "report.url"),
    ("address", "sft", {"report.sink": Sink.HTTP, "report.url": "http://a\n"}, "report.url"),
    ("address", "sft", {"report.sink": Sink.HTTP, "report.url": "http://me:x@a"}, "report.url"),
    ("integrations", "sft", {"report.integrations": ("excel",)}, "report.integrations"),
]

ALLOWED_ENVIRONMENT: list[tuple[str, str, Values]] = [
    ("variables", "sft", {"pod.env": {"A": "it's $HOME, 漢字"}, "pod.secrets": {"HF": "hf"}}),
    ("credentials", "sft", {"pod.env": {"MAX_TOKEN": "512"}, "pod.secrets": {"HF": "my_hf"}}),
    ("address", "sft", {"report.sink": Sink.HTTP, "report.url": "https://a.example:8443/x"}),
    ("address", "sft", {"report.sink": Sink.HTTP, "report.url": "http://127.0.0.1:8080"}),
    ("address", "rented_sft", {"report.sink": Sink.HTTP, "report.url": "https://8.8.8.8/a?b=c"}),
    ("integrations", "sft", {"report.integrations": ("wandb", "trackio")}),
]
