// What needs a script: the number of selected letters, a first check of JSON, a filter that follows the keys, and the live
// values of redrives, batches and schedules.
(function () {
  "use strict";

  var REDRIVE_EVERY = 700; // milliseconds between two requests for one redrive
  var LIST_EVERY = 2000; // the same for the list of redrives
  var LIVE_EVERY = 1000; // the same for batches while one of them runs
  var NOW_EVERY = 2000; // the same for the overview
  var IDLE_EVERY = 5000; // the same when all have ended: another one may begin, or a dead chunk may be repaired
  var COPIED_FOR = 1500; // milliseconds that a button says so
  var FILTER_AFTER = 300; // milliseconds after the last key
  var ATTRIBUTES = { batches: "data-batch", schedules: "data-schedule", beats: "data-beat" }; // on the element that shows one

  // Flower's script takes each page at "/" for its page of workers, and asks for this.
  if (window.autorefresh === undefined) { window.autorefresh = 0; }

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
        // A text may stand without quotes. The server decides whether the argument accepts a text.
        try { if (/^["{[]/.test(area.value.trim())) { JSON.parse(area.value); } } catch (error) {
          text = "This begins as JSON, and is none.";
        }
        area.classList.toggle("is-invalid", Boolean(text));
        area.setAttribute("aria-invalid", text ? "true" : "false");
        fault.textContent = text;
      });
    });
  }

  // From the origin: if the address of the page contains the login, a relative address cannot be fetched.
  function ask(path) {
    return fetch(window.location.origin + path, { credentials: "same-origin" }).then(function (answer) {
      if (answer.status >= 400 && answer.status < 500) { return null; } // another try would fail, too
      if (!answer.ok) { throw new Error(answer.status); }
      return answer;
    });
  }

  // Ask for values again and again. `show` returns the milliseconds until the next request, or 0 to stop.
  function poll(path, wait, show) {
    function look() {
      ask(path)
        .then(function (answer) { return answer && answer.json(); })
        .then(function (values) {
          var next = values ? show(values) : 0;
          if (next) { window.setTimeout(look, next); }
        })
        .catch(function () { window.setTimeout(look, 4 * wait); });
    }
    window.setTimeout(look, wait);
  }

  function writeValues(values, place) {
    all("[data-value]", place).forEach(function (element) {
      var text = String(values[element.getAttribute("data-value")]);
      if (element.textContent !== text) { element.textContent = text; } // a screen reader reads changes only
    });
  }

  function redrives() {
    var card = document.querySelector("[data-conventions-redrives]");
    if (!card || !card.querySelector("[data-moves=yes]")) { return; }
    poll(card.getAttribute("data-conventions-redrives"), LIST_EVERY, function (rows) {
      var moves = false;
      all("[data-redrive]", card).forEach(function (row) {
        var values = rows[row.getAttribute("data-redrive")];
        if (values) { writeValues(values, row); moves = moves || values.moves; }
      });
      return moves ? LIST_EVERY : 0;
    });
  }

  function redrive() {
    var card = document.querySelector("[data-conventions-redrive]");
    if (!card || card.getAttribute("data-moves") !== "yes") { return; }
    poll(card.getAttribute("data-conventions-redrive"), REDRIVE_EVERY, function (values) {
      writeValues(values, card);
      var bar = card.querySelector("progress");
      bar.max = Math.max(values.total, 1);
      bar.value = values.succeeded + values.dead + values.ended;
      if (!values.open) { all("[data-conventions-stop]").forEach(function (form) { form.remove(); }); }
      return values.moves ? REDRIVE_EVERY : 0;
    });
  }

  function drawBar(bar, values) {
    var done = bar.querySelector(".conventions-done");
    var failed = bar.querySelector(".conventions-failed");
    bar.classList.toggle("conventions-unknown", !values.bar);
    bar.setAttribute("aria-valuetext", values.texts.bar);
    if (!values.bar) { bar.removeAttribute("aria-valuenow"); return; }
    bar.setAttribute("aria-valuenow", values.percent);
    done.setAttribute("width", values.bar.done);
    failed.setAttribute("x", values.bar.done);
    failed.setAttribute("width", values.bar.failed);
  }

  function draw(place, values) {
    place.setAttribute("data-state", values.state);
    all("[data-value]", place).forEach(function (element) {
      var text = values.texts[element.getAttribute("data-value")];
      if (text === undefined) { return; } // the value belongs to an element within this one
      if (element.textContent !== text) { element.textContent = text; } // a screen reader reads changes only
    });
    all("[data-if]", place).forEach(function (part) {
      var shown = values.is[part.getAttribute("data-if")];
      if (shown !== undefined) { part.hidden = !shown; }
    });
    all(".conventions-bar", place).forEach(function (bar) { drawBar(bar, values); });
  }

  // Rows and links come and go. Take them from a fresh copy of the page, unless one of them has the focus.
  function replaceParts(root, path) {
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
      .catch(function () {}); // the next request tries again
  }

  function live() {
    var root = document.querySelector("[data-conventions-live]");
    if (!root) { return; }
    var path = root.getAttribute("data-conventions-live");
    poll(path + "&as=json", root.getAttribute("data-live") === "yes" ? LIVE_EVERY : IDLE_EVERY, function (answer) {
      Object.keys(ATTRIBUTES).forEach(function (kind) {
        var places = all("[" + ATTRIBUTES[kind] + "]", root).concat(root);
        (answer[kind] || []).forEach(function (values) {
          places.forEach(function (place) {
            if (place.getAttribute(ATTRIBUTES[kind]) === values.id) { draw(place, values); }
          });
        });
      });
      if (answer.version !== root.getAttribute("data-version")) { replaceParts(root, path); }
      return answer.live ? LIVE_EVERY : IDLE_EVERY;
    });
  }

  // The overview: its parts are taken from a fresh copy of the page. One that a person works in stays as it is.
  function now() {
    var root = document.querySelector("[data-conventions-now]");
    if (!root || root.hasAttribute("data-conventions-still")) { return; }
    var path = root.getAttribute("data-conventions-now");
    function isInUse(part) {
      var chosen = window.getSelection();
      return part.contains(document.activeElement) || (chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode));
    }
    function look() {
      if (document.hidden) { window.setTimeout(look, NOW_EVERY); return; }
      ask(path)
        .then(function (answer) { return answer && answer.text(); })
        .then(function (text) {
          var found = text && new DOMParser().parseFromString(text, "text/html").querySelector("[data-conventions-now]");
          if (!found) { return; }
          var isBehind = false;
          all("[data-part]", found).forEach(function (fresh) {
            var part = root.querySelector("[data-part=" + fresh.getAttribute("data-part") + "]");
            if (!part || (part.conventionsShown || part.innerHTML) === fresh.innerHTML) { return; }
            if (isInUse(part)) { isBehind = true; return; }
            var open = all("details", part).map(function (one) { return one.open; });
            part.innerHTML = part.conventionsShown = fresh.innerHTML;
            all("details", part).forEach(function (one, place) { if (place < open.length) { one.open = open[place]; } });
          });
          if (isBehind || !found.hasAttribute("data-conventions-still")) { window.setTimeout(look, NOW_EVERY); } // what has ended changes no more
        })
        .catch(function () { window.setTimeout(look, 4 * NOW_EVERY); });
    }
    window.setTimeout(look, NOW_EVERY);
  }

  function copy() {
    document.addEventListener("click", function (event) {
      var button = event.target.closest && event.target.closest("[data-conventions-copy]");
      if (!button || !navigator.clipboard) { return; }
      navigator.clipboard.writeText(button.getAttribute("data-conventions-copy")).then(function () {
        button.textContent = "Copied";
        window.setTimeout(function () { button.textContent = "Copy"; }, COPIED_FOR);
      });
    });
  }

  // Filter while the visitor types. Without a script, the button does it.
  function filter() {
    var form = document.querySelector("[data-conventions-filter]");
    var place = document.querySelector("[data-conventions-results]");
    if (!form || !place || !window.URLSearchParams) { return; }
    var waiting = 0;
    var asked = new AbortController();
    function renew() {
      var words = new URLSearchParams();
      new FormData(form).forEach(function (text, name) { if (text.trim()) { words.append(name, text); } });
      // Not `form.action`: that is the field of this name.
      var path = form.getAttribute("action") + (words.toString() ? "?" + words : "");
      asked.abort(); // nobody waits for an older answer any more
      asked = new AbortController();
      fetch(window.location.origin + path, { credentials: "same-origin", signal: asked.signal })
        .then(function (answer) { return answer.text(); }) // of a refused filter, too: it says what is wrong
        .then(function (text) {
          var fresh = new DOMParser().parseFromString(text, "text/html").querySelector("[data-conventions-results]");
          if (!fresh) { return; }
          place.replaceChildren.apply(place, Array.prototype.slice.call(document.importNode(fresh, true).childNodes));
          window.history.replaceState(null, "", path);
        })
        .catch(function () {}); // the button still works
    }
    form.addEventListener("input", function () {
      window.clearTimeout(waiting);
      waiting = window.setTimeout(renew, FILTER_AFTER);
    });
  }

  // On a phone what was found comes first, unless the page was asked for with a filter.
  function fold() {
    var narrow = window.matchMedia("(max-width: 47.99rem)");
    function follow() {
      all("[data-conventions-fold]").forEach(function (part) { part.open = !narrow.matches || Boolean(window.location.search); });
    }
    narrow.addEventListener("change", follow);
    follow();
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
  fold();
  filter();
  editor();
  redrive();
  redrives();
  live();
  now();
  copy();
}());
