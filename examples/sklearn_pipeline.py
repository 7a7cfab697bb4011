"""scikit-learn's tools over fmknn's estimators: columns of a frame in, a grid search, a prediction.

Users and items as one-hot columns and the hour as a number; what is to be tuned is tuned in folds.
Nothing is downloaded. It needs pandas and scikit-learn.
"""

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import fmknn

# ratings, a little better in the evening
ratings, _ = fmknn.datasets.make_interactions(150, 80, 4000, noise=0.3, random_state=0)
hour = np.random.default_rng(0).integers(0, 24, len(ratings))
frame = pd.DataFrame({"user": ratings.user_ids, "item": ratings.item_ids, "hour": hour})
stars = pd.Series(ratings.values + 0.05 * hour, name="stars")

columns = ColumnTransformer(
    [
        ("ids", OneHotEncoder(handle_unknown="ignore"), ["user", "item"]),
        ("hour", StandardScaler(), ["hour"]),
    ]
)
fm = fmknn.FMRegressor(solver=fmknn.ALS(n_iter=20), random_state=0)
pipeline = Pipeline([("columns", columns), ("fm", fm)])

# 1. a grid over the estimator's settings and, as solver__…, those of its solver
grid = {"fm__n_factors": [0, 4, 8], "fm__solver__l2_factors": [1.0, 10.0]}
search = GridSearchCV(pipeline, grid, cv=3, scoring="neg_root_mean_squared_error")
search.fit(frame, stars)
table = pd.DataFrame(search.cv_results_["params"]).assign(
    rmse=-search.cv_results_["mean_test_score"]
)
print(table.round(3).to_string(index=False))
print(f"best: {search.best_params_}, rmse {-search.best_score_:.3f}")

# 2. the best one, fitted on all rows, is a pipeline: a frame in, predictions out
evening = frame.head(3).assign(hour=[8, 14, 20])
print(evening.assign(stars=search.predict(evening).round(2)).to_string(index=False))

# 3. row weights are the argument of a step, and are cut into folds like X and y
recent = np.linspace(0.5, 1.5, len(frame))
weighted = search.best_estimator_.fit(frame, stars, fm__weights=recent)
print(f"with recent rows counting more: R² {weighted.score(frame, stars):.3f}")
