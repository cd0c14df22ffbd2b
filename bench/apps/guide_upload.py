"""An upload with the code that guides to S3 show: decode with Pillow, then `upload_fileobj`."""

import io
import os
import uuid

import boto3
from flask import Flask, Response, jsonify, request
from PIL import Image

BUCKET_NAME = os.environ["S3_BUCKET"]

application = Flask(__name__, static_folder=None)

s3_client = boto3.client(
    "s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"], region_name=os.environ["AWS_REGION"]
)


@application.post("/api/images")
def upload() -> tuple[Response, int]:
    """Store the image in the field `image`, and answer with its URL."""
    data = request.files["image"].read()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    name = f"images/{uuid.uuid4().hex}.png"
    s3_client.upload_fileobj(
        io.BytesIO(data), BUCKET_NAME, name, ExtraArgs={"ContentType": "image/png", "ACL": "public-read"}
    )
    url = f"https://{BUCKET_NAME}.s3.amazonaws.com/{name}"
    return jsonify(success=True, image_url=url, message="Image uploaded successfully"), 201
