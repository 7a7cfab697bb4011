"""Everybody's recommendations into one file of JSON lines, chunk by chunk. Needs no download.

Memory holds one chunk of users, however many there are, and the file appears when it is complete.
"""

import json
import time

import fmknn

ratings = fmknn.datasets.make_interactions(
    n_users=10_000, n_items=1_000, n_ratings=200_000, random_state=0, return_truth=False
).without_features()
model = fmknn.Recommender(fmknn.FMRegressor(n_iter=5, random_state=0)).fit(ratings)

began = time.perf_counter()
written = model.recommend_all(n=20, to="recommendations.jsonl", chunk=2048)
seconds = time.perf_counter() - began
print(f"{written:,} users in {seconds:.1f} s ({written / seconds:,.0f} users per second)")

with open("recommendations.jsonl", encoding="utf-8") as file:
    first = json.loads(next(file))
print(f"user {first['user']}: items {first['items'][:5]} …")
print(f"scores {[round(score, 2) for score in first['scores'][:5]]} …")

# chunks can be taken one by one, too: for a database, a queue, a file format of your own
for number, top in enumerate(model.recommend_all(n=20, chunk=2500)):
    print(f"chunk {number}: {len(top)} users, {top.counts.sum():,} recommendations")
