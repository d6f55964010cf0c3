// What viser's page cannot do by itself, in front of it: the address that keeps what is shown, words when the studio is
// gone, and keys. It reads the messages between the page and its worker, and takes no word of them for markup.
(() => {
  const TOLD = "The studio is not there any more: it was ended, or the way to it is cut. This page looks for it every second, and comes back by itself.";
  const KEYS = [" ", ",", ".", "[", "]", "u", "r"];
  const fields = {}; // uuid by label
  let worker, count = 0, looking, state = location.hash.slice(1); // viser's page may write an address without it

  const banner = document.createElement("div");
  banner.id = "mclip-gone";
  banner.setAttribute("role", "alert");
  banner.style.cssText = "position:fixed;inset:0 0 auto 0;z-index:9999;padding:.8rem 1rem;background:#8a1c1c;color:#fff;font:15px/1.4 system-ui,sans-serif;text-align:center";

  async function look() {
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      if (!answer.ok) return;
      history.replaceState(null, "", "#" + state);
      location.reload();
    } catch { /* not yet */ }
  }

  function gone() {
    if (looking) return;
    banner.textContent = TOLD;
    document.body.append(banner);
    looking = setInterval(look, 1000);
  }

  function read(message) {
    if (message.props && message.props.label !== undefined) fields[message.props.label] = message.uuid;
    const [uuid, value] = [message.uuid, message.updates?.value ?? message.value];
    if (looking || !uuid || uuid !== fields.link || typeof value !== "string" || !value) return;
    state = value;
    history.replaceState(null, "", "#" + state);
  }

  const Own = window.Worker;
  window.Worker = class extends Own {
    constructor(...made) {
      super(...made);
      this.addEventListener("message", ({ data }) => {
        if (data?.type === "closed" && worker === this) gone();
        if (data?.type === "message_batch") data.messages.forEach(read);
      });
    }

    postMessage(message, ...more) {
      if (message?.type === "set_server") {
        worker = this;
        const way = new URL(message.server); // of the page's own address: no socket may have a fragment
        way.hash = "";
        way.searchParams.set("state", state);
        message = { ...message, server: way.href };
      }
      super.postMessage(message, ...more);
    }
  };

  addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (!KEYS.includes(key) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("input, textarea, button, select, [role=slider], [role=tab]") || !fields.key) return;
    event.preventDefault();
    const updates = { value: `${key}${(count += 1)}` };
    worker.postMessage({ type: "send", message: { type: "GuiUpdateMessage", uuid: fields.key, updates } });
  });
  addEventListener("hashchange", () => location.reload());
  addEventListener("DOMContentLoaded", () => {
    document.title = "mclip studio";
  });
})();
