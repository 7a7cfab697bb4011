"""After the first fit: new films, new people and new ratings, without training from scratch."""

import numpy as np

import fmknn

ratings = fmknn.datasets.load_movielens("100k")
films = ratings.item_features


def between(start, stop):
    """The ratings of a time, and the genres of films that were rated in it."""
    rows = np.argsort(ratings.timestamps, kind="stable")[start:stop]
    rated = np.unique(ratings.item_index[rows])
    return fmknn.Interactions.from_arrays(
        ratings.user_ids[rows],
        ratings.item_ids[rows],
        ratings.values[rows],
        item_features={"id": films.ids[rated], "genres": films["genres"][rated]},
    )


earlier, later = between(0, 90_000), between(90_000, 100_000)
estimator = fmknn.FMRegressor(n_factors=8, solver="als", random_state=0)
model = fmknn.Recommender(estimator).fit(earlier)
print(f"trained on {earlier}")

# a new film has its genres only; it can be listed at once
new = np.setdiff1d(later.items.ids, earlier.items.ids)[:3]
genres = later.item_features["genres"][later.items.positions(new)]
model.add_items({"item": new, "genres": genres})
top = model.recommend([1], n=3, candidates=new)
print("new films for user 1:", [films.row(item)["title"] for item in top.items[0]])

# a new user with a few ratings gets what fits them, by the closed form of one update
model.add_users(histories={9001: {50: 5.0, 181: 5.0, 174: 4.0}})
titles = [films.row(item)["title"] for item in model.recommend([9001], n=3).items[0]]
print("for user 9001:", titles)

# and now and then a few sweeps over all rows, from where the model stands
known = later.take(np.isin(later.item_ids, earlier.items.ids))
rows = known.user_ids, known.item_ids
before = np.sqrt(np.mean((model.predict(*rows, unknown="cold") - known.values) ** 2))
model.partial_fit(later)
after = np.sqrt(np.mean((model.predict(*rows) - known.values) ** 2))
print(f"{len(model.users)} users, {len(model.items)} films")
print(f"error on the new rows: {before:.3f} before, {after:.3f} after learning them")
