// Keeps the page as the server has it: parts that have changed are morphed in, so that focus, open
// details and the place on the page stay. Without it the page works too, and shows what was loaded.
"use strict";

(() => {
  const link = document.getElementById("link");
  const dialog = document.getElementById("record");

  function say(text, tone) {
    if (link.textContent !== text) link.textContent = text;
    link.className = `pill ${tone}`;
  }

  // What is open stays open: the server does not know of it.
  const callbacks = {
    beforeAttributeUpdated: (name, element) =>
      !(name === "open" && element.tagName === "DETAILS"),
  };

  function show(part) {
    const place = document.getElementById(`body-${part.name}`);
    if (!place) return;
    Idiomorph.morph(place, part.html, {
      morphStyle: "innerHTML",
      ignoreActiveValue: true,
      callbacks,
    });
  }

  let seen = document.documentElement.dataset.seen;
  let source = null;

  function listen() {
    if (source) source.close();
    source = new EventSource(`/v1/stream/page?seen=${encodeURIComponent(seen)}`);
    source.onopen = () => say("live", "good");
    source.onerror = () => say("no connection", "bad");
    source.addEventListener("part", (event) => show(JSON.parse(event.data)));
    source.addEventListener("seen", (event) => {
      seen = event.lastEventId;
      document.documentElement.dataset.seen = seen;
    });
    source.addEventListener("trouble", (event) => {
      const trouble = JSON.parse(event.data);
      say(trouble || "live", trouble ? "bad" : "good");
    });
  }

  // A page that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      if (source) source.close();
      source = null;
      say("asleep", "");
    } else if (!source) listen();
  });
  if (!document.hidden) listen();

  // Pieces of a page are HTML; a refusal is data, and its words may be a stranger's.
  async function put(place, answer) {
    const kind = answer.headers.get("content-type") || "";
    const text = await answer.text();
    if (kind.startsWith("text/html")) {
      place.innerHTML = text;
      return;
    }
    try {
      place.textContent = JSON.parse(text).detail;
    } catch {
      place.textContent = text;
    }
  }

  // Records open over the page, and are pages of their own for who opens them in another tab.
  async function open(address) {
    const body = document.getElementById("record-body");
    body.replaceChildren();
    try {
      const answer = await fetch(address, { headers: { "x-fragment": "1" } });
      await put(body, answer);
    } catch {
      body.textContent = "The record cannot be read now.";
    }
    if (!dialog.open) dialog.showModal();
  }

  document.addEventListener("click", (event) => {
    const anchor = event.target.closest("a.record");
    if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(anchor.getAttribute("href"));
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  const act = document.getElementById("act-form");
  const answer = document.getElementById("answer");

  document.addEventListener("click", (event) => {
    if (!act || !event.target.closest("a.leave")) return;
    event.preventDefault();
    answer.replaceChildren();
    act.querySelector("button").focus();
  });

  // Commands are answered in their place, those of weight with a form that confirms them.
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!act || (form !== act && form.id !== "confirm-form")) return;
    event.preventDefault();
    const data = new URLSearchParams(new FormData(form, event.submitter));
    const buttons = act.querySelectorAll("button");
    for (const button of buttons) button.disabled = true;
    answer.textContent = "Asked; there is no answer yet …";
    try {
      const reply = await fetch(form.action, {
        method: "POST",
        body: data,
        headers: { "x-fragment": "1" },
      });
      await put(answer, reply);
      const is_asked = answer.querySelector("#confirm-form") !== null;
      if (reply.ok && !is_asked) act.querySelector("[name=reason]").value = "";
    } catch {
      answer.textContent = "The server cannot be reached; whether it was asked is not known.";
    } finally {
      for (const button of buttons) button.disabled = false;
      const next = answer.querySelector("#confirm-form button") || event.submitter;
      (next.isConnected ? next : act.querySelector("button")).focus();
    }
  });
})();
