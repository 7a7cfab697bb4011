"""Which 20 products is each customer likely to buy next?

Without an argument purchases are generated. With one, it is the gzipped csv file of UCI's Online
Retail (Chen, 2015, doi 10.24432/C5BW33, CC BY 4.0).
"""

import csv
import gzip
import sys

import numpy as np

import fmknn


def generated():
    """Draw who likes what; what is liked is bought once to three times, in some order."""
    drawn = fmknn.datasets.make_interactions(
        800, 400, 100_000, zipf=0.3, noise=0.1, random_state=3, return_truth=False
    )
    liked = np.flatnonzero(drawn.values > np.quantile(drawn.values, 0.8))
    rng = np.random.default_rng(0)
    rows = rng.permutation(np.repeat(liked, rng.integers(1, 4, len(liked))))
    products = [f"product {item}" for item in drawn.item_ids[rows]]
    return fmknn.Interactions.from_arrays(
        drawn.user_ids[rows], products, timestamps=np.arange(len(rows))
    )


def online_retail(path):
    """One row for each product on an invoice; returns and unknown customers left out."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["CustomerID"]]
    bought = [line for line in lines if int(line["Quantity"]) > 0]
    return fmknn.Interactions.from_arrays(
        [line["CustomerID"] for line in bought],
        [line["Description"] for line in bought],
        timestamps=[int(line["InvoiceNo"]) for line in bought],  # ascending in time
    )


purchases = generated() if len(sys.argv) < 2 else online_retail(sys.argv[1])
print(purchases)
train, test = fmknn.splits.leave_last(purchases, n=5)
ranker = fmknn.FMRanker(n_factors=32, random_state=0)  # repeated purchases are counts
models = {"popularity": fmknn.baselines.Popularity(), "FMRanker": ranker}
options = {"allow_overlap": True, "exclude_seen": False}  # products are bought again
options |= {"intervals": 0.95, "random_state": 0}
print(fmknn.compare(models, train, test, ["ndcg@20", "recall@20"], **options))

shop = fmknn.Recommender(ranker).fit(purchases.with_recency(0.5))  # the last ones say most
for customer, products in shop.recommend(purchases.users.ids[:3], n=20, exclude_seen=False):
    print(f"customer {customer}:", ", ".join(product.strip() for product, _ in products))
basket = purchases.item_ids[:3].tolist()
print("somebody new:", ", ".join(shop.recommend_for(history=basket, n=3).items[0]))
