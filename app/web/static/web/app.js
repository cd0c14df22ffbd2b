// The page's entry: each module finds its own part of it.

import "./results.js";
import "./generate.js";
import "./upload.js";
