"""A data frame in, data frames out, and three plots of what was trained."""

import polars as pl

import fmknn

drawn, _ = fmknn.datasets.make_interactions(400, 300, 12_000, random_state=0)
frame = pl.DataFrame({"user": drawn.user_ids, "film": drawn.item_ids, "stars": drawn.values})

ratings = fmknn.Interactions.from_frame(frame, user="user", item="film", value="stars")
train, test = fmknn.splits.random(ratings, test=0.2, random_state=0)

# training curves, with the error on held-out rows dashed beside them
fitting, validation = fmknn.splits.random(train, test=0.1, random_state=0)
runs = {}
for solver in ("als", "adam"):
    stopping = fmknn.EarlyStopping(validation, patience=5)
    estimator = fmknn.FMRegressor(8, solver=solver, callbacks=[stopping], random_state=0)
    runs[solver] = estimator.fit(fitting)
fmknn.plot.training_curve(runs).figure.savefig("training.png")

# what a fraction of the popularity does to everybody's lists
model = fmknn.Recommender(fmknn.FMRegressor(8, solver="als", random_state=0)).fit(train)
metrics = ["ndcg@10", "coverage@10", "novelty@10"]
dial = {a: model.evaluate(test, metrics, popularity=a) for a in (1.0, 0.5, 0.0)}
fmknn.plot.popularity_dial(dial).figure.savefig("popularity.png")

# recall against speed: indexes that were tuned to different recalls
tuned = [
    model.with_index(fmknn.FaissIndex("IVF", target_recall=recall)).index_ for recall in (0.8, 0.95)
]
fmknn.plot.recall_against_speed({"IVF": tuned}).figure.savefig("recall.png")
print("three plots:", "training.png, popularity.png, recall.png")

lists = model.recommend([3, 8], n=2).to_frame()  # polars came in, so polars comes out
print(type(lists).__module__.split(".")[0], lists.columns, lists.height, "rows")
