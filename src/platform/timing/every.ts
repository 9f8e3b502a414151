interface Repeated {
  stop: () => void;
}

/** Does something every so often, one time after the other. What it throws ends nothing. */
export function every(ms: number, act: () => Promise<void>, onError: (error: unknown) => void): Repeated {
  let timer: NodeJS.Timeout | null = null;
  const schedule = () => {
    timer = setTimeout(() => {
      void act()
        .catch(onError)
        .then(() => timer && schedule());
    }, ms);
  };
  schedule();
  return {
    stop: () => {
      if (timer) clearTimeout(timer);
      timer = null;
    },
  };
}
