// What needs a script: the number of selected letters, the first look at JSON, what goes on with a redrive, with batches
// and with schedules.
(function () {
  "use strict";

  var LOOK_EVERY = 700; // milliseconds between two looks at a redrive
  var LIST_EVERY = 2000; // the same, at the list of them
  var LIVE_EVERY = 1000; // the same at batches that go on
  var REST_EVERY = 5000; // and where all have ended: another may begin, and a dead chunk be repaired
  var PLACES = { batches: "data-batch", schedules: "data-schedule", beats: "data-beat" }; // what is drawn where

  function all(selector, root) {
    return Array.prototype.slice.call((root || document).querySelectorAll(selector));
  }

  function selection() {
    var form = document.getElementById("selection");
    if (!form) { return; }
    var boxes = all("input[name=id]", form);
    var every = form.querySelector("[data-conventions-all]");
    function update() {
      var count = boxes.filter(function (box) { return box.checked; }).length;
      all("[data-conventions-selected]", form).forEach(function (button) { button.disabled = !count; });
      all("[data-conventions-count]", form).forEach(function (text) { text.textContent = count || "selected"; });
      if (every) {
        every.checked = count > 0 && count === boxes.length;
        every.indeterminate = count > 0 && count < boxes.length;
      }
    }
    if (every) {
      every.addEventListener("change", function () {
        boxes.forEach(function (box) { box.checked = every.checked; });
        update();
      });
    }
    form.addEventListener("change", update);
    window.addEventListener("pageshow", update);
    update();
  }

  function editor() {
    all("[data-conventions-json]").forEach(function (area) {
      var fault = document.getElementById(area.getAttribute("aria-describedby"));
      area.addEventListener("blur", function () {
        var text = "";
        // A text may stand without quotes; whether the argument takes one, the server says.
        try { if (/^["{[]/.test(area.value.trim())) { JSON.parse(area.value); } } catch (error) {
          text = "This begins as JSON, and is none.";
        }
        area.classList.toggle("is-invalid", Boolean(text));
        area.setAttribute("aria-invalid", text ? "true" : "false");
        fault.textContent = text;
      });
    });
  }

  // From the origin: where the address of the page has the login in it, nothing relative can be fetched.
  function ask(path) {
    return fetch(window.location.origin + path, { credentials: "same-origin" }).then(function (answer) {
      if (answer.status >= 400 && answer.status < 500) { return null; } // it will not get better
      if (!answer.ok) { throw new Error(answer.status); }
      return answer;
    });
  }

  // Ask for figures again and again. `show` returns the milliseconds until the next time, or 0 at the end.
  function follow(path, wait, show) {
    function look() {
      ask(path)
        .then(function (answer) { return answer && answer.json(); })
        .then(function (figures) {
          var next = figures ? show(figures) : 0;
          if (next) { window.setTimeout(look, next); }
        })
        .catch(function () { window.setTimeout(look, 4 * wait); });
    }
    window.setTimeout(look, wait);
  }

  function write(figures, place) {
    all("[data-figure]", place).forEach(function (figure) {
      var text = String(figures[figure.getAttribute("data-figure")]);
      if (figure.textContent !== text) { figure.textContent = text; } // a reader aloud hears of changes only
    });
  }

  function redrives() {
    var card = document.querySelector("[data-conventions-redrives]");
    if (!card || !card.querySelector("[data-moves=yes]")) { return; }
    follow(card.getAttribute("data-conventions-redrives"), LIST_EVERY, function (rows) {
      var moves = false;
      all("[data-redrive]", card).forEach(function (row) {
        var figures = rows[row.getAttribute("data-redrive")];
        if (figures) { write(figures, row); moves = moves || figures.moves; }
      });
      return moves ? LIST_EVERY : 0;
    });
  }

  function redrive() {
    var card = document.querySelector("[data-conventions-redrive]");
    if (!card || card.getAttribute("data-moves") !== "yes") { return; }
    follow(card.getAttribute("data-conventions-redrive"), LOOK_EVERY, function (figures) {
      write(figures, card);
      var bar = card.querySelector("progress");
      bar.max = Math.max(figures.total, 1);
      bar.value = figures.succeeded + figures.dead + figures.ended;
      if (!figures.open) { all("[data-conventions-stop]").forEach(function (form) { form.remove(); }); }
      return figures.moves ? LOOK_EVERY : 0;
    });
  }

  function drawBar(bar, figures) {
    var done = bar.querySelector(".conventions-done");
    var failed = bar.querySelector(".conventions-failed");
    bar.classList.toggle("conventions-unknown", !figures.bar);
    bar.setAttribute("aria-valuetext", figures.texts.bar);
    if (!figures.bar) { bar.removeAttribute("aria-valuenow"); return; }
    bar.setAttribute("aria-valuenow", figures.percent);
    done.setAttribute("width", figures.bar.done);
    failed.setAttribute("x", figures.bar.done);
    failed.setAttribute("width", figures.bar.failed);
  }

  function draw(place, figures) {
    place.setAttribute("data-state", figures.state);
    all("[data-figure]", place).forEach(function (figure) {
      var text = figures.texts[figure.getAttribute("data-figure")];
      if (text === undefined) { return; } // of something within this place
      if (figure.textContent !== text) { figure.textContent = text; } // a reader aloud hears of changes only
    });
    all("[data-if]", place).forEach(function (part) {
      var shown = figures.is[part.getAttribute("data-if")];
      if (shown !== undefined) { part.hidden = !shown; }
    });
    all(".conventions-bar", place).forEach(function (bar) { drawBar(bar, figures); });
  }

  // Rows and links that come and go are taken from the page itself, unless somebody is on one of them just now.
  function renew(root, path) {
    var parts = all("[data-part]", root);
    if (parts.some(function (part) { return part.contains(document.activeElement); })) { return; }
    ask(path)
      .then(function (answer) { return answer && answer.text(); })
      .then(function (text) {
        var page = text && new DOMParser().parseFromString(text, "text/html");
        var found = page && page.querySelector("[data-conventions-live]");
        if (!found) { return; }
        parts.forEach(function (part) {
          var fresh = found.querySelector("[data-part=" + part.getAttribute("data-part") + "]");
          if (fresh) { part.replaceWith(document.importNode(fresh, true)); }
        });
        root.setAttribute("data-version", found.getAttribute("data-version"));
      })
      .catch(function () {}); // the next look tries it again
  }

  function live() {
    var root = document.querySelector("[data-conventions-live]");
    if (!root) { return; }
    var path = root.getAttribute("data-conventions-live");
    follow(path + "&as=json", root.getAttribute("data-live") === "yes" ? LIVE_EVERY : REST_EVERY, function (answer) {
      Object.keys(PLACES).forEach(function (kind) {
        var places = all("[" + PLACES[kind] + "]", root).concat(root);
        (answer[kind] || []).forEach(function (figures) {
          places.forEach(function (place) {
            if (place.getAttribute(PLACES[kind]) === figures.id) { draw(place, figures); }
          });
        });
      });
      if (answer.version !== root.getAttribute("data-version")) { renew(root, path); }
      return answer.live ? LIVE_EVERY : REST_EVERY;
    });
  }

  document.addEventListener("keydown", function (event) {
    var search = document.querySelector("[data-conventions-search]");
    var alone = !(event.ctrlKey || event.altKey || event.metaKey);
    if (event.key === "/" && alone && search && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) {
      event.preventDefault();
      search.focus();
    }
  });

  selection();
  editor();
  redrive();
  redrives();
  live();
}());
