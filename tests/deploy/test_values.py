"""What `deploy/nginx.conf` says of its values to replace holds for the default settings."""

import re
from pathlib import Path

from app.api.openai_schemas import MAX_IMAGES
from app.config.settings import Config

DEPLOY = Path(__file__).parents[2] / "deploy"
SITE = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
README = (DEPLOY / "README.md").read_text(encoding="utf-8")


def test_both_files_count_the_marks_alike() -> None:
    assert re.findall(r"<- (\d)\.", SITE) == ["1", "2", "3", "4"]
    assert "replace the four values marked" in SITE
    assert "replace the four values marked `<-`" in README


def test_nginx_waits_for_the_longest_request() -> None:
    found = re.search(r"^    proxy_read_timeout (\d+)s;", SITE, re.MULTILINE)
    assert found
    assert int(found[1]) == MAX_IMAGES * (Config.from_env({}).generator_timeout + 30)
    assert "n × (GENERATOR_TIMEOUT + 30 s)" in SITE
    assert "n × (`GENERATOR_TIMEOUT` + 30)" in README
