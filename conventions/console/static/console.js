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
  var ANSWER_WITHIN = 10000; // milliseconds until a request that hangs is given up
  var SILENT_AFTER = 6000; // milliseconds without an answer until the page says that it is old
  var MISSED = 2; // requests in a row that failed, after which it says so, too
  var LONGEST_PAUSE = 8000; // milliseconds between two requests of which none is answered
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
  // A redirect leads to the login: none of the pages that are asked for here has moved.
  function ask(path, form) {
    var patience = new AbortController();
    var timer = window.setTimeout(function () { patience.abort(); }, ANSWER_WITHIN);
    return fetch(window.location.origin + path, { credentials: "same-origin", redirect: "manual", signal: patience.signal })
      .then(function (answer) {
        var isOut = answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403;
        if (isOut || !answer.ok) { throw Object.assign(new Error("status " + answer.status), { isOut: isOut }); }
        var at = Date.parse(answer.headers.get("Date"));
        return answer[form]().then(function (body) { return { body: body, at: at }; });
      })
      .finally(function () { window.clearTimeout(timer); });
  }

  // Whether what the page shows is of now. If not, it says since when, by the server's clock and in the zone of the page.
  function renewal() {
    var root = document.querySelector("[data-conventions-at]");
    var at = Date.parse(root.getAttribute("data-conventions-at"));
    var asked = 0; // when the first of the requests was sent of which none is answered
    var missed = 0;
    var banner = document.createElement("p"); // there from the start, so that a screen reader reads what comes
    banner.className = "conventions-stale";
    banner.setAttribute("role", "status");
    root.prepend(banner);
    function since() {
      var words = { timeZone: root.getAttribute("data-conventions-zone"), hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
      return "Not renewed since " + new Intl.DateTimeFormat("en-GB", words).format(at) + ".";
    }
    function say(text) { if (banner.textContent !== text) { banner.textContent = text; } }
    function look() {
      if (asked && (missed >= MISSED || Date.now() - asked >= SILENT_AFTER)) { say(since() + " It is tried again."); }
    }
    var timer = window.setInterval(look, 1000);
    return {
      isAsked: function () { asked = asked || Date.now(); },
      isNew: function (moment) { asked = missed = 0; at = moment || at; say(""); },
      isMissed: function () { missed += 1; look(); return missed; },
      isOut: function () {
        window.clearInterval(timer);
        var link = document.createElement("a");
        link.href = window.location.href;
        link.textContent = "Log in again";
        say(since() + " ");
        banner.append(link);
      },
    };
  }

  // Ask for values again and again. `show` returns the milliseconds until the next request, or 0 to stop; or a promise of them.
  function poll(path, form, wait, show) {
    var state = renewal();
    function look() {
      if (document.hidden) { window.setTimeout(look, wait); return; }
      state.isAsked();
      ask(path, form)
        .then(function (answer) {
          return Promise.resolve(show(answer.body)).then(function (next) {
            state.isNew(answer.at);
            if (next) { window.setTimeout(look, next); }
          });
        })
        .catch(function (error) {
          if (error.isOut) { state.isOut(); return; } // a wrong login that is tried again is locked out
          window.setTimeout(look, Math.max(wait, Math.min(wait * state.isMissed(), LONGEST_PAUSE)));
        });
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
    poll(card.getAttribute("data-conventions-redrives"), "json", LIST_EVERY, function (rows) {
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
    poll(card.getAttribute("data-conventions-redrive"), "json", REDRIVE_EVERY, function (values) {
      writeValues(values, card);
      var bar = card.querySelector("progress");
      bar.max = Math.max(values.total, 1);
      bar.value = values.succeeded + values.dead + values.ended;
      if (!values.open) { all("[data-conventions-stop]").forEach(function (form) { form.remove(); }); }
      return values.moves ? REDRIVE_EVERY : 0;
    });
  }

  // The element of a page as it was answered. What is another page, such as one of a proxy, is none of ours.
  function parsed(text, selector) {
    var found = new DOMParser().parseFromString(text, "text/html").querySelector(selector);
    if (!found) { throw new Error("another page"); }
    return found;
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
    if (parts.some(function (part) { return part.contains(document.activeElement); })) { return null; }
    return ask(path, "text").then(function (answer) {
      var found = parsed(answer.body, "[data-conventions-live]");
      parts.forEach(function (part) {
        var fresh = found.querySelector("[data-part=" + part.getAttribute("data-part") + "]");
        if (fresh) { part.replaceWith(document.importNode(fresh, true)); }
      });
      root.setAttribute("data-version", found.getAttribute("data-version"));
    });
  }

  function live() {
    var root = document.querySelector("[data-conventions-live]");
    if (!root) { return; }
    var path = root.getAttribute("data-conventions-live");
    poll(path + "&as=json", "json", root.getAttribute("data-live") === "yes" ? LIVE_EVERY : IDLE_EVERY, function (answer) {
      Object.keys(ATTRIBUTES).forEach(function (kind) {
        var places = all("[" + ATTRIBUTES[kind] + "]", root).concat(root);
        (answer[kind] || []).forEach(function (values) {
          places.forEach(function (place) {
            if (place.getAttribute(ATTRIBUTES[kind]) === values.id) { draw(place, values); }
          });
        });
      });
      var next = answer.live ? LIVE_EVERY : IDLE_EVERY;
      var isOther = answer.version !== root.getAttribute("data-version");
      return Promise.resolve(isOther ? replaceParts(root, path) : null).then(function () { return next; });
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
    poll(path, "text", NOW_EVERY, function (text) {
      var found = parsed(text, "[data-conventions-now]");
      var isBehind = false;
      all("[data-part]", found).forEach(function (fresh) {
        var part = root.querySelector("[data-part=" + fresh.getAttribute("data-part") + "]");
        if (!part || (part.conventionsShown || part.innerHTML) === fresh.innerHTML) { return; }
        if (isInUse(part)) { isBehind = true; return; }
        var open = all("details", part).map(function (one) { return one.open; });
        part.innerHTML = part.conventionsShown = fresh.innerHTML;
        all("details", part).forEach(function (one, place) { if (place < open.length) { one.open = open[place]; } });
      });
      return isBehind || !found.hasAttribute("data-conventions-still") ? NOW_EVERY : 0; // what has ended changes no more
    });
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
      var path = window.location.origin + form.getAttribute("action");
      asked.abort(); // nobody waits for an older answer any more
      asked = new AbortController();
      var options = { credentials: "same-origin", signal: asked.signal };
      if (form.getAttribute("method") === "post") { // it leads to an address, which has no value that is sensitive
        options.method = "POST";
        options.body = words;
      } else if (words.toString()) {
        path += "?" + words;
      }
      var address = "";
      fetch(path, options)
        .then(function (answer) {
          var at = new URL(answer.url);
          address = answer.redirected || options.method !== "POST" ? at.pathname + at.search : ""; // of a search that is refused there is none; without the host: the address of the page may have a login, which no script may change
          return answer.text(); // of a refused filter, too: it says what is wrong
        })
        .then(function (text) {
          var fresh = new DOMParser().parseFromString(text, "text/html").querySelector("[data-conventions-results]");
          if (!fresh) { return; }
          place.replaceChildren.apply(place, Array.prototype.slice.call(document.importNode(fresh, true).childNodes));
          if (address) { window.history.replaceState(null, "", address); }
        })
        .catch(function () {}); // the button still works
    }
    // An argument is one when it is whole: half of its name would be none, and the half of a value another value.
    form.addEventListener("input", function (event) {
      if (event.target.name === "arg") { return; }
      window.clearTimeout(waiting);
      waiting = window.setTimeout(renew, FILTER_AFTER);
    });
    form.addEventListener("change", function (event) { if (event.target.name === "arg") { renew(); } });
  }

  // On a phone what was found comes first, unless something is filled into the filter. The first choice of a list is its default.
  function fold() {
    var narrow = window.matchMedia("(max-width: 47.99rem)");
    function isFilled(field) { return field.tagName === "SELECT" ? field.selectedIndex > 0 : Boolean(field.value.trim()); }
    function follow() {
      all("[data-conventions-fold]").forEach(function (part) {
        part.open = !narrow.matches || all("input:not([type=hidden]), select", part).some(isFilled);
      });
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
