"""Side features, a context column, a newcomer and a list of candidates. Needs no download.

The data is drawn from a factorization machine whose scores are known: users have a group and a
taste, items have tags, and every rating was given on one of seven days.
"""

import numpy as np

import fmknn

drawn, truth = fmknn.datasets.make_interactions(
    n_users=600, n_items=300, n_ratings=40_000, context=7, random_state=1
)
days = np.array(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])
users, items = drawn.user_features, drawn.item_features

ratings = fmknn.Interactions.from_arrays(
    [f"user {id}" for id in drawn.user_ids],
    [f"item {id}" for id in drawn.item_ids],
    drawn.values,
    context={"day": days[drawn.context["context"].index]},
    user_features=fmknn.FeatureTable(
        [f"user {id}" for id in users.ids] + ["newcomer"],  # has features, but no ratings
        {"group": [*users["group"], "group 3"], "taste": [*users["taste"], 1.5]},
    ),
    item_features=fmknn.FeatureTable([f"item {id}" for id in items.ids], {"tags": items["tags"]}),
)
print(ratings)

train, test = fmknn.splits.random(ratings, test=0.1, random_state=0)
model = fmknn.Recommender(fmknn.FMRegressor(n_factors=8, random_state=0)).fit(train)
ids_only = fmknn.Recommender(fmknn.FMRegressor(n_factors=8, random_state=0))
ids_only.fit(train.without_features())
print(f"test RMSE {model.evaluate(test, ['rmse'])['rmse']:.3f}", end=", ")
print(f"without features {ids_only.evaluate(test, ['rmse'])['rmse']:.3f}")


def show(what, top):
    for _, best in top:
        print(f"{what:<24}", ", ".join(f"{item} ({score:.1f})" for item, score in best))


show("user 7 on Monday", model.recommend("user 7", n=3, context={"day": "mon"}))
show("user 7 on Saturday", model.recommend("user 7", n=3, context={"day": "sat"}))
show("user 7 on any day", model.recommend("user 7", n=3, context_default="mean"))
in_stock = [f"item {id}" for id in range(20)]
show(
    "of what is in stock", model.recommend("user 7", 3, candidates=in_stock, context_default="mean")
)
show("a newcomer's features", model.recommend("newcomer", n=3, context={"day": "sat"}))
cold = model.recommend("nobody knows", n=3, context={"day": "sat"}, unknown="cold")
show("somebody unknown", cold)
