// The obvious server in Express: read the file from disk, and send it with res.send.
const fs = require("fs");
const path = require("path");
const express = require("express");

const app = express();
const root = process.env.BENCH_FILES;

app.get(/.*/, (req, res) => {
  fs.readFile(path.join(root, req.path), (error, data) => {
    if (error) return res.status(404).send("Not found");
    res.type("image/png").send(data);
  });
});

app.listen(Number(process.env.PORT), "127.0.0.1");
