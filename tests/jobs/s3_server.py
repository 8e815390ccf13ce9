"""S3 on loopback that checks credentials."""

import json
import logging
import urllib.request
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "splatfix-test"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}],
}


class Server:
    """S3 on loopback, where one user's key counts and any other is refused."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.running.start()
        host, self.port = self.running.get_host_and_port()
        self.url = f"http://{host}:{self.port}"
        self.key = {"aws_access_key_id": "first", "aws_secret_access_key": "first"}
        iam = self.client("iam")
        iam.create_user(UserName="user")
        iam.put_user_policy(UserName="user", PolicyName="s3", PolicyDocument=json.dumps(POLICY))
        key = iam.create_access_key(UserName="user")["AccessKey"]
        self.client("s3").create_bucket(Bucket=BUCKET)
        self.key = {
            "aws_access_key_id": key["AccessKeyId"],
            "aws_secret_access_key": key["SecretAccessKey"],
        }
        # From here on every request is checked.
        address = f"{self.url}/moto-api/reset-auth"
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(address, data=b"0", headers=plain))

    def client(self, service: str) -> Any:
        """An SDK's client with the key that counts."""
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1", **self.key)
