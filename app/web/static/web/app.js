// The page's entry point. Each module finds its own part of the page.

import "./library.js";
import "./generate.js";
import "./upload.js";
import "./cache.js";
