() => {
  let timer = null;
  const show = (player, call) => {
    const range = player.querySelector("input");
    for (const box of player.querySelectorAll(".frames")) {
      const all = [...box.children];
      all.forEach((frame, i) => { frame.hidden = i !== Math.min(call, all.length - 1); });
    }
    range.value = call;
    player.querySelector("output").textContent = `step ${call} of ${range.max}`;
    player.classList.toggle("done", call >= Number(range.max));
  };
  const play = (player) => {
    const last = Number(player.querySelector("input").max);
    let call = 0;
    clearInterval(timer);
    show(player, call);
    timer = setInterval(() => { call < last ? show(player, ++call) : clearInterval(timer); },
                        Math.max(40, Math.min(350, 5000 / last)));
  };
  document.addEventListener("input", ({ target }) => {
    if (!target.matches(".player input")) return;
    clearInterval(timer);
    show(target.closest(".player"), Number(target.value));
  });
  document.addEventListener("click", ({ target }) => {
    if (target.matches(".player button")) play(target.closest(".player"));
  });
  window.playCanvas = () => {
    const player = document.querySelector(".player");
    if (!player) return;
    player.scrollIntoView({ block: "nearest" });
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play(player);
  };
}
