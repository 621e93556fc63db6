"""The EC2 requests that Ray makes with tune/clusters/aws.yaml, sent to moto's server instead of Amazon's."""

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_NODE_STATUS, TAG_RAY_USER_NODE_TYPE
from support.running import ROOT


@pytest.fixture
def account(tmp_path, monkeypatch):
    """An EC2 client of an empty account. Ray writes its key into the home folder, which is this test's own."""
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-west-2",
    }.items():
        monkeypatch.setenv(name, value)
    yield boto3.client("ec2")
    server.stop()


def group_as_the_file_says(account) -> str:
    """A security group that lets in ssh from one address, and its own machines; returns its id."""
    group = account.create_security_group(GroupName="sigma-vae", Description="sigma-vae")["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
    within = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    account.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh, within])
    return group


def test_ray_starts_an_on_demand_head_and_a_spot_worker_whose_gpu_it_knows(account):
    cluster = yaml.safe_load((ROOT / "tune" / "clusters" / "aws.yaml").read_text())
    # What a user changes: the image. A role of one's own spares Ray the 15 s it waits for one that it makes.
    image = account.describe_images()["Images"][0]["ImageId"]
    boto3.client("iam").create_instance_profile(InstanceProfileName="own")
    cluster["available_node_types"]["head"]["node_config"]["IamInstanceProfile"] = {"Name": "own"}
    group = group_as_the_file_says(account)
    for node_type in cluster["available_node_types"].values():
        node_type["node_config"] |= {"ImageId": image, "SecurityGroupIds": [group]}

    resolved = _bootstrap_config(cluster, no_config_cache=True)
    provider = _get_node_provider(resolved["provider"], resolved["cluster_name"])
    for name in ("head", "worker"):
        tags = {TAG_RAY_NODE_KIND: name, TAG_RAY_NODE_NAME: name, TAG_RAY_USER_NODE_TYPE: name}
        node_config = resolved["available_node_types"][name]["node_config"]
        provider.create_node(node_config, {**tags, TAG_RAY_NODE_STATUS: "uninitialized"}, 1)

    started = [one for each in account.describe_instances()["Reservations"] for one in each["Instances"]]
    kinds = {one["InstanceType"]: one.get("InstanceLifecycle", "on demand") for one in started}
    assert kinds == {"m7i.2xlarge": "on demand", "g6.12xlarge": "spot"}
    # Ray reads from EC2 what the machine types have, and the file must not promise anything else.
    worker = resolved["available_node_types"]["worker"]["resources"]
    assert (worker["CPU"], worker["GPU"], worker["accelerator_type:L4"]) == (48, 4, 1)
    # Ray has opened nothing to everyone, as it does with a group that it makes itself.
    groups = {one["GroupId"] for machine in started for one in machine["SecurityGroups"]}
    assert groups == {group}
    rules = account.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert [entry["CidrIp"] for rule in rules for entry in rule["IpRanges"]] == ["203.0.113.7/32"]
