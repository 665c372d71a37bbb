import time, cProfile, pstats
def test_t(crane, tiny, tmp_path):
    for i in range(3):
        t=time.time()
        p=cProfile.Profile(); p.enable()
        o=crane("train",*tiny,"source=[mvtec]","targets=[visa,btad]","guide=tiny",f"run_dir={tmp_path}/r{i}")
        p.disable()
        print(time.time()-t, o.code, o.err)
        if i==2: pstats.Stats(p).sort_stats("cumtime").print_stats(70)
    print(o.out)
