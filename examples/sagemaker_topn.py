"""The method of AWS's post on factorization machines and top-x recommendations, step by step.

Train on who liked what (a rating of 4 or 5), make item and user vectors of the model, search them
by inner product: the top 100 films for each of 943 users, without those they have rated
("Extending Amazon SageMaker factorization machines algorithm to predict top x recommendations",
AWS, 2019).

    python sagemaker_topn.py                              # trains and searches here
    python sagemaker_topn.py ROLE_ARN BUCKET              # trains on Amazon SageMaker
    python sagemaker_topn.py ROLE_ARN BUCKET sagemaker    # searches there, too
"""

import sys
from contextlib import nullcontext

import fmknn

train, _ = fmknn.datasets.load_movielens("100k", fold="ua")
films = train.item_features  # their titles; the model learns from ids alone
train = train.without_features().replace(values=(train.values >= 4).astype("float32"))

backend = None  # this machine
if len(sys.argv) > 2:
    role, bucket, *search = sys.argv[1:]
    backend = fmknn.SageMakerBackend(role, bucket, search=search[0] if search else "local")

solver = fmknn.Adam.sagemaker(epochs=200)  # SageMaker's rule and defaults, wherever it trains
estimator = fmknn.FMClassifier(n_factors=64, solver=solver, random_state=0)
with backend or nullcontext():  # what is made on AWS is removed at the end
    model = fmknn.Recommender(estimator, backend=backend).fit(train)
    n_users = model.recommend_all(n=100, to="top100.jsonl")
print(f"top100.jsonl: 100 films for each of {n_users} users")
top = model.with_index(fmknn.FaissIndex()).recommend([1], n=10)  # one user: no job for that
for rank, (film, chance) in enumerate(zip(top.items[0], top.predictions[0], strict=True), start=1):
    print(f"{rank:2d}. {films.row(film)['title']} ({chance:.0%} likely to be liked)")
