"""The part of RunPod's GraphQL schema that its Python SDK speaks, over an emulated account."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from graphql import GraphQLError, GraphQLResolveInfo, GraphQLSchema, build_schema

from podproof.compiler.limits import LIMITS, Size
from podproof.launcher.catalog import GPU_TYPES, MAX_GPUS_PER_POD, GpuType, gpu_type
from podproof.launcher.emulator_pods import Account, Caller, EmulatedPod, PodOrder

# RunPod's own words: to a client they mean that it got what it wanted.
POD_NOT_FOUND = "pod not found to terminate"

_SDL = """
enum CloudTypeEnum { ALL COMMUNITY SECURE }
input EnvironmentVariableInput { key: String!  value: String! }
input PodFindAndDeployOnDemandInput {
  name: String  imageName: String  cloudType: CloudTypeEnum  startSsh: Boolean
  gpuTypeId: String  gpuCount: Int  supportPublicIp: Boolean  volumeInGb: Int
  minVcpuCount: Int  minMemoryInGb: Int  allowedCudaVersions: [String]  dataCenterId: String
  dockerArgs: String  countryCode: String  containerDiskInGb: Int  ports: String
  volumeMountPath: String  env: [EnvironmentVariableInput]  templateId: String
  networkVolumeId: String  minDownload: Int  minUpload: Int
}
input DeployCpuPodInput {
  name: String  imageName: String  cloudType: CloudTypeEnum  startSsh: Boolean
  instanceId: String  dataCenterId: String  dockerArgs: String  countryCode: String
  containerDiskInGb: Int  ports: String  volumeMountPath: String
  env: [EnvironmentVariableInput]  templateId: String  networkVolumeId: String
  minDownload: Int  minUpload: Int
}
input PodFilter { podId: String! }
input PodTerminateInput { podId: String! }
input PodStopInput { podId: String! }
input PodResumeInput { podId: String!  gpuCount: Int! }
input GpuTypeFilter { id: String }
input GpuLowestPriceInput { gpuCount: Int! }
type LowestPrice { minimumBidPrice: Float  uninterruptablePrice: Float }
type GpuType {
  id: String!  displayName: String  memoryInGb: Int  maxGpuCount: Int  manufacturer: String
  cudaCores: Int  secureCloud: Boolean  communityCloud: Boolean
  securePrice: Float  communityPrice: Float  secureSpotPrice: Float  communitySpotPrice: Float
  oneWeekPrice: Float  oneMonthPrice: Float  threeMonthPrice: Float
  lowestPrice(input: GpuLowestPriceInput): LowestPrice
}
type PodMachine { podHostId: String  gpuDisplayName: String }
type PodRuntimePort {
  ip: String  isIpPublic: Boolean  privatePort: Int  publicPort: Int  type: String
}
type PodRuntime { uptimeInSeconds: Int  ports: [PodRuntimePort] }
type Pod {
  id: String!  name: String  imageName: String  env: [String]  dockerArgs: String
  desiredStatus: String  costPerHr: Float  gpuCount: Int  containerDiskInGb: Int
  volumeInGb: Int  volumeMountPath: String  ports: String  port: Int  podType: String
  memoryInGb: Int  vcpuCount: Int  uptimeSeconds: Int  lastStatusChange: String
  dockerId: String  machineId: String  machine: PodMachine  runtime: PodRuntime
}
type NetworkVolume { id: String!  name: String  size: Int  dataCenterId: String }
type User { id: String!  pubKey: String  pods: [Pod]  networkVolumes: [NetworkVolume] }
type Query { myself: User  pod(input: PodFilter): Pod  gpuTypes(input: GpuTypeFilter): [GpuType] }
type Mutation {
  podFindAndDeployOnDemand(input: PodFindAndDeployOnDemandInput!): Pod
  deployCpuPod(input: DeployCpuPodInput!): Pod
  podStop(input: PodStopInput!): Pod
  podResume(input: PodResumeInput!): Pod
  podTerminate(input: PodTerminateInput!): Boolean
}
"""


@cache
def runpod_schema() -> GraphQLSchema:
    """Return the schema, built once."""
    return build_schema(_SDL)


# A resolver gets the arguments of its field by name; the only one here is `input`.
_Fields = Mapping[str, Any]


class Resolvers:
    """The answers to the schema's root fields, by their names."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def root(self) -> dict[str, Any]:
        """Return the root value that GraphQL resolves its root fields on."""
        return {
            "myself": self._myself,
            "pod": self._pod,
            "gpuTypes": self._gpu_types,
            "podFindAndDeployOnDemand": self._deploy,
            "deployCpuPod": self._deploy,
            "podStop": self._stop,
            "podResume": self._resume,
            "podTerminate": self._terminate,
        }

    def _myself(self, info: "GraphQLResolveInfo[Caller]") -> dict[str, Any]:
        _require_account(info.context)
        volumes = self._account.network_volumes
        return {
            "id": "user_local",
            "pubKey": "",
            "pods": [pod_fields(pod) for pod in self._account.pods()],
            "networkVolumes": [
                {"id": volume, "name": volume, "size": 100, "dataCenterId": "LOCAL-1"}
                for volume in volumes
            ],
        }

    def _pod(self, info: "GraphQLResolveInfo[Caller]", **given: _Fields) -> dict[str, Any] | None:
        pod = self._own_pod(info.context, given["input"]["podId"])
        return None if pod is None else pod_fields(pod)

    def _gpu_types(
        self, _info: "GraphQLResolveInfo[Caller]", **given: _Fields
    ) -> list[dict[str, Any]]:
        wanted = given.get("input", {}).get("id")
        return [_gpu_fields(gpu) for gpu in GPU_TYPES if wanted in {None, gpu.gpu_id}]

    def _deploy(self, info: "GraphQLResolveInfo[Caller]", **given: _Fields) -> dict[str, Any]:
        _require_account(info.context)
        order = _pod_order(given["input"])
        _check_order(order, self._account)
        return pod_fields(self._account.deploy(order))

    def _stop(self, info: "GraphQLResolveInfo[Caller]", **given: _Fields) -> dict[str, Any]:
        pod = self._existing_pod(info.context, given["input"]["podId"])
        self._account.stop(pod)
        return pod_fields(pod)

    def _resume(self, info: "GraphQLResolveInfo[Caller]", **given: _Fields) -> dict[str, Any]:
        pod = self._existing_pod(info.context, given["input"]["podId"])
        self._account.resume(pod)
        return pod_fields(pod)

    def _terminate(self, info: "GraphQLResolveInfo[Caller]", **given: _Fields) -> None:
        self._account.terminate(self._existing_pod(info.context, given["input"]["podId"]))

    def _existing_pod(self, caller: Caller, pod_id: str) -> EmulatedPod:
        pod = self._own_pod(caller, pod_id)
        if pod is None:
            raise GraphQLError(POD_NOT_FOUND, extensions={"code": "POD_NOT_FOUND"})
        return pod

    def _own_pod(self, caller: Caller, pod_id: str) -> EmulatedPod | None:
        is_foreign = caller.pod_id not in {None, pod_id}
        return None if is_foreign else self._account.find(pod_id)


def _require_account(caller: Caller) -> None:
    if caller.pod_id is not None:
        raise GraphQLError("Unauthorized", extensions={"code": "UNAUTHORIZED"})


def _pod_order(fields: Mapping[str, Any]) -> PodOrder:
    gpu_id = fields.get("gpuTypeId")
    return PodOrder(
        name=fields.get("name") or "",
        image=fields.get("imageName") or "",
        gpu_id=gpu_id,
        gpu_count=(fields.get("gpuCount") or 1) if gpu_id else 0,
        is_secure=fields.get("cloudType") != "COMMUNITY",
        data_center=fields.get("dataCenterId"),
        docker_args=fields.get("dockerArgs") or "",
        container_disk_gb=fields.get("containerDiskInGb") or 0,
        volume_gb=fields.get("volumeInGb") or 0,
        network_volume=fields.get("networkVolumeId"),
        env=tuple((pair["key"], pair["value"]) for pair in fields.get("env") or ()),
    )


def _check_order(order: PodOrder, account: Account) -> None:
    most_env, longest_name = LIMITS[Size.ENV_COUNT].hard, LIMITS[Size.POD_NAME].hard
    rules = {
        f"at most {most_env} environment variables": len(order.env) <= most_env,
        f"a name of at most {longest_name} characters": len(order.name) <= longest_name,
        "a known gpuTypeId": order.gpu_id is None or gpu_type(order.gpu_id) is not None,
        "an existing networkVolumeId": order.network_volume in {None, *account.network_volumes},
    }
    broken = [f"input needs {rule}" for rule, is_kept in rules.items() if not is_kept]
    if broken:
        raise GraphQLError("; ".join(broken), extensions={"code": "BAD_USER_INPUT"})


def pod_fields(pod: EmulatedPod) -> dict[str, Any]:
    """Return a pod as GraphQL shows it; the container's `runtime` is null until it is up."""
    order, uptime_s = pod.order, pod.uptime_s
    gpu = gpu_type(order.gpu_id) if order.gpu_id else None
    return {
        "id": pod.pod_id,
        "name": order.name,
        "imageName": order.image,
        "env": [f"{key}={value}" for key, value in order.env],
        "dockerArgs": order.docker_args,
        "desiredStatus": pod.desired.value,
        "costPerHr": pod.usd_per_h,
        "gpuCount": order.gpu_count,
        "containerDiskInGb": order.container_disk_gb,
        "volumeInGb": order.volume_gb,
        "podType": "RESERVED",
        "uptimeSeconds": 0,  # as in the real API, which tells the truth under runtime alone
        "machineId": "local",
        "machine": {
            "podHostId": f"{pod.pod_id}-local",
            "gpuDisplayName": gpu.display_name if gpu else None,
        },
        "runtime": None if uptime_s is None else {"uptimeInSeconds": int(uptime_s), "ports": []},
    }


def _gpu_fields(gpu: GpuType) -> dict[str, Any]:
    cheapest = min(gpu.secure_usd_per_h, gpu.community_usd_per_h)
    return {
        "id": gpu.gpu_id,
        "displayName": gpu.display_name,
        "memoryInGb": gpu.memory_gb,
        "maxGpuCount": MAX_GPUS_PER_POD,
        "manufacturer": "Nvidia",
        "secureCloud": True,
        "communityCloud": True,
        "securePrice": gpu.secure_usd_per_h,
        "communityPrice": gpu.community_usd_per_h,
        "lowestPrice": {"uninterruptablePrice": cheapest},
    }
