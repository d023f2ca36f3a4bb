"""Pages about a finished study, as its user asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow

from tests.system.product import Product


def test_the_page_of_the_best_network_is_with_its_run_in_mlflow(
    product: Product, best: dict[str, Any], tmp_path: Path
) -> None:
    page = Path(product.json("explain", "digits")["page"])

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{product.folder}/.neurosweep/mlflow.db")
    kept = client.download_artifacts(best["mlflow"]["run_id"], "pages/explain.html", str(tmp_path))
    assert Path(kept).read_bytes() == page.read_bytes()
    looks = [look for look in product.store().openings(1) if look.reason == "explain"]
    assert [look.trial for look in looks] == [best["best"]["trial"]]
