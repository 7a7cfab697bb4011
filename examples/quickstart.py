"""Ratings in, recommendations out: MovieLens 100K in ten lines.

MovieLens is taken from $FMKNN_DATA or the cache folder, or downloaded.
"""

import fmknn

ratings = fmknn.datasets.load_movielens("100k").without_features()  # ids are all it learns from
train, test = fmknn.splits.leave_last(ratings, n=1)

model = fmknn.Recommender(fmknn.FMRegressor(random_state=0)).fit(train)
print(model.evaluate(test, metrics=["rmse", "ndcg@10", "recall@20"]))

films = ratings.item_features  # the titles are still there
for user, items in model.recommend([196, 22], n=5):  # without the films they have rated
    print(f"\nuser {user}")
    for film, score in items:
        print(f"  {score:.2f}  {films.row(film)['title']}")

model.save("movies.fmknn")
again = fmknn.load("movies.fmknn").recommend(196, n=5)
print(f"\nsaved and loaded, user 196: films {', '.join(map(str, again.items[0]))}")
