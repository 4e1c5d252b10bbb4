// What needs a script: the number of selected letters, the first look at JSON, and the progress of a redrive.
(function () {
  "use strict";

  var LOOK_EVERY = 700; // milliseconds between two looks at a redrive

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
        try { if (area.value.trim()) { JSON.parse(area.value); } } catch (error) {
          text = "This is not JSON; a text is written in quotes.";
        }
        area.classList.toggle("is-invalid", Boolean(text));
        area.setAttribute("aria-invalid", text ? "true" : "false");
        fault.textContent = text;
      });
    });
  }

  function progress() {
    var card = document.querySelector("[data-conventions-redrive]");
    if (!card || card.getAttribute("data-moves") !== "yes") { return; }
    function show(figures) {
      all("[data-figure]", card).forEach(function (place) {
        place.textContent = figures[place.getAttribute("data-figure")];
      });
      var bar = card.querySelector("progress");
      bar.max = Math.max(figures.total, 1);
      bar.value = figures.succeeded + figures.failed;
      if (!figures.open) { all("[data-conventions-stop]").forEach(function (form) { form.remove(); }); }
      return figures.moves;
    }
    // From the origin: where the address of the page has the login in it, nothing relative can be fetched.
    var address = window.location.origin + card.getAttribute("data-conventions-redrive");
    function look() {
      fetch(address, { credentials: "same-origin" })
        .then(function (answer) {
          if (answer.status >= 400 && answer.status < 500) { return { moves: false, over: true }; } // it will not get better
          if (!answer.ok) { throw new Error(answer.status); }
          return answer.json();
        })
        .then(function (figures) {
          if (!figures.over && show(figures)) { window.setTimeout(look, LOOK_EVERY); }
        })
        .catch(function () { window.setTimeout(look, 4 * LOOK_EVERY); });
    }
    window.setTimeout(look, LOOK_EVERY);
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
  progress();
}());
