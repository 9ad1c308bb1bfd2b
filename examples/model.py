"""Play a vendor: make what examples/model.yaml audits, in runs/vendor.

A classifier of the breast cancer data that come with scikit-learn, trained on half of the patients
and saved with skops; four references, trained alike on halves of the same patients drawn anew; and
the table of records, with a column for each model that says who was in it.
"""

from pathlib import Path

import numpy as np
import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

out = Path(__file__).resolve().parents[1] / "runs" / "vendor"
out.mkdir(parents=True, exist_ok=True)
data = load_breast_cancer(as_frame=True)
inputs = data.data.iloc[:, :10]  # the means of ten measures of cell nuclei
label = np.where(data.target == 1, "benign", "malignant")
records = inputs.assign(patient=[f"p{i:03d}" for i in range(len(inputs))], diagnosis=label)
rng = np.random.default_rng(0)
for name in ("target", "reference_1", "reference_2", "reference_3", "reference_4"):
    inside = rng.permutation(len(inputs)) < len(inputs) // 2
    # As many products of features as patients, so that some can be learnt by heart.
    products = PolynomialFeatures(3), StandardScaler()
    model = make_pipeline(StandardScaler(), *products, LogisticRegression(C=0.05, max_iter=2000))
    model.fit(inputs[inside].to_numpy(np.float32), label[inside])
    skops.io.dump(model, out / f"{name}.skops")
    records[name] = inside.astype(int)
records.to_csv(out / "records.csv", index=False)
